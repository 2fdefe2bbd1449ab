"""Which model does a kind of work, by what people said of earlier answers. Pure.

What is believed of a model is a Beta distribution of the share of its answers that are good. The
model that the registry prefers begins with a good name and keeps it until others were judged by
enough people, and clearly better: without evidence nothing changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

LEAST_VOTES: Final = 10.0
"""Of a model, until it may take the default's place; see `MOST_OF_A_RATER`."""
LEAST_RATERS: Final = 4
MOST_OF_A_RATER: Final = 3.0
"""Votes that one rater has about a model and a kind of work, however often it votes."""
MARGIN: Final = 0.05
"""By so much must a model be better, on a scale of 0 to 1."""
_DEFAULT_PRIOR: Final = (14.0, 6.0)
_PRIOR: Final = (5.0, 5.0)


class Work(StrEnum):
    """What a step's model is asked to do; evidence of one kind says nothing of another."""

    ANSWER = "answer"
    """To answer a whole question."""
    RAG = "rag"
    """To answer from documents."""
    CODE = "code"
    """To answer a question, or a part of one, that is about code."""
    PART = "part"
    """To answer one part of a question that was split."""


WORDS: Final[Mapping[Work, str]] = {
    Work.ANSWER: "whole questions",
    Work.RAG: "answers from documents",
    Work.CODE: "code",
    Work.PART: "parts of questions",
}


@dataclass(frozen=True)
class Tally:
    """What people said of a model's answers; what one rater counts is bounded."""

    votes: float = 0.0
    good: float = 0.0
    """The sum of their scores, each 0 to 1."""
    raters: int = 0

    @property
    def mean(self) -> float | None:
        """The mean score; None where nobody voted."""
        return self.good / self.votes if self.votes > 0 else None

    @property
    def is_enough(self) -> bool:
        """Whether so many people voted that a model may be chosen for it."""
        return self.votes >= LEAST_VOTES and self.raters >= LEAST_RATERS


@dataclass(frozen=True)
class Belief:
    """A Beta distribution of the share of good answers."""

    alpha: float
    beta: float

    @property
    def mean(self) -> float:
        """What is expected."""
        return self.alpha / (self.alpha + self.beta)


class Why(StrEnum):
    """Why a model was chosen."""

    FIRST = "first"
    """The registry prefers it, and no other was judged clearly better."""
    JUDGED = "judged"
    """It was judged clearly better than the one that the registry prefers."""
    TRIED = "tried"
    """To find out how well it answers."""


@dataclass(frozen=True)
class Choice:
    """The model for a kind of work."""

    model: str
    why: Why


Tallies = Mapping[str, Tally]
"""By model; one that is missing was never judged."""


def belief(tally: Tally, *, default: bool) -> Belief:
    """What is believed of a model after these votes."""
    alpha, beta = _DEFAULT_PRIOR if default else _PRIOR
    return Belief(alpha + tally.good, beta + max(0.0, tally.votes - tally.good))


def settled(tallies: Tallies, models: Sequence[str]) -> Choice:
    """The model expected to be best. `models` begins with the one that the registry prefers."""
    default, *others = models
    expected = _believed(tallies, default, default).mean + MARGIN
    chosen = Choice(default, Why.FIRST)
    for name in others:
        mean = _believed(tallies, name, default).mean
        if _tally(tallies, name).is_enough and mean > expected:
            expected, chosen = mean, Choice(name, Why.JUDGED)
    return chosen


def choose(tallies: Tallies, models: Sequence[str], explore_share: float, dice: Random) -> Choice:
    """The model for one question. With a share of 0 that is always the settled one.

    Above it, this share of the questions goes to all models evenly, and of the rest each model
    that was judged enough gets as many as it is likely to be the best (Thompson sampling).
    """
    best = settled(tallies, models)
    if explore_share <= 0:
        return best
    if dice.random() < explore_share:
        return _tried(dice.choice(models), models[0], best)
    drawn = [name for name in models if name == models[0] or _tally(tallies, name).is_enough]
    draws = {name: _draw(_believed(tallies, name, models[0]), dice) for name in drawn}
    return _tried(max(draws, key=lambda name: draws[name]), models[0], best)


def explanation(tallies: Tallies, models: Sequence[str], name: str, chosen: str) -> str:
    """Why a model is the settled one or is not, for a person."""
    default = models[0]
    if name == default:
        better = f"; {chosen} was judged better" if chosen != default else ""
        return f"the registry prefers it{better}"
    tally = _tally(tallies, name)
    if not tally.is_enough:
        return (
            f"{tally.votes:.3g} of {LEAST_VOTES:g} votes by {tally.raters} of {LEAST_RATERS} people"
        )
    ours, theirs = (_believed(tallies, each, default).mean for each in (name, default))
    if name == chosen:
        return f"judged better than {default}: {ours:.2f} against {theirs:.2f}"
    if ours <= theirs + MARGIN:
        return f"not better than {default} by {MARGIN:g}: {ours:.2f} against {theirs:.2f}"
    return f"{chosen} was judged better"


def _tried(name: str, default: str, best: Choice) -> Choice:
    if name == best.model:
        return best
    return Choice(name, Why.FIRST if name == default else Why.TRIED)


def _draw(believed: Belief, dice: Random) -> float:
    return dice.betavariate(believed.alpha, believed.beta)


def _believed(tallies: Tallies, name: str, default: str) -> Belief:
    return belief(_tally(tallies, name), default=name == default)


def _tally(tallies: Tallies, name: str) -> Tally:
    return tallies.get(name, Tally())
