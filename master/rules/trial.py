"""Whether a rule on trial does good: votes of people on answers with it and without it.

It is safe to look after every vote, and hard to buy a verdict:

- A rater's votes of one arm count as their mean, at most `MOST_VOTES` times, however many they
  are.
- Without the tenth of the raters who speak most for a rule, much of the evidence for it must still
  be there.
- The two arms are compared by a mixture sequential probability ratio test (Johari, Pekelis and
  Walsh 2015, "Always valid inference", section 5): if the rule makes no difference, the evidence
  reaches 1 / error with a probability of at most `error`, over all looks together. Its variance
  is the larger of two: as if every vote were a person's own, and as if a rater's votes were one
  (linearised, by rater), because people who rate twice rate alike.
- To refuse a rule or to take it back needs less than to make it active, the square root: that is
  the side on which to err.

The bound is one for votes that are counted from a fixed time on. A window that slides, as for
active rules, has none: the longer one looks, the likelier a harmless rule is taken back.

The normal approximation is not exact for few votes, hence the least numbers of votes and raters;
a test measures how often it errs at every look.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from master.rules.rule import Arm

MOST_VOTES: Final = 3
"""That one rater counts for in one arm."""
_TYPICAL_LIFT: Final = 0.2
"""Of scores from 0 to 1; what the test is best at finding."""
_LOUDEST: Final = 0.1
"""Of the raters: so many together must not be what decides."""
_AGAINST: Final = 0.5
"""Of the evidence for a rule, as a logarithm: what is enough against it."""
_LEFT: Final = 0.5
"""Of the evidence, as a logarithm: what must be left without them."""
_MOST_WEIGHT: Final = 100.0
"""Of evidence, as a logarithm: more says nothing more, and would overflow."""


class Verdict(StrEnum):
    """What follows for a rule."""

    WAIT = "wait"
    PROMOTE = "promote"
    REJECT = "reject"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True)
class Vote:
    """What a person said of one answer, 0 to 1, and whether the rule had changed it."""

    rater: str
    arm: Arm
    score: float

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ValueError(f"a score is between 0 and 1, not {self.score}")


@dataclass(frozen=True)
class Terms:
    """What is asked of the evidence."""

    votes: int = 30
    """The fewest in each arm, counted with the bound of a rater."""
    raters: int = 5
    """The fewest in each arm."""
    error: float = 0.05
    """How often, at most, a rule that makes no difference may become active."""


@dataclass(frozen=True)
class Side:
    """The votes of one arm."""

    given: int
    """As they came."""
    votes: int
    """Counted with the bound of a rater."""
    raters: int
    mean: float
    """0 to 1; 0.5 without a vote."""


@dataclass(frozen=True)
class Decision:
    """A verdict with the numbers that made it."""

    verdict: Verdict
    tried: Side
    control: Side
    evidence: float
    """How much likelier the votes are if the rule makes a difference."""
    needed: float
    """Of evidence, for a verdict on the side where the lift is."""

    @property
    def lift(self) -> float:
        """By how much the mean with the rule is higher."""
        return self.tried.mean - self.control.mean

    @property
    def reason(self) -> str:
        """The numbers as a sentence for a person."""
        return (
            f"{_WORDS[self.verdict]}: {self.tried.mean:.2f} with it ({_said(self.tried)}), "
            f"{self.control.mean:.2f} without ({_said(self.control)}); "
            f"evidence {self.evidence:.3g} of {self.needed:.3g}"
        )


_WORDS: Final = {
    Verdict.WAIT: "not decided",
    Verdict.PROMOTE: "better",
    Verdict.REJECT: "worse",
    Verdict.ROLL_BACK: "worse by now",
}


def _said(side: Side) -> str:
    return f"{side.votes} votes, {side.raters} raters"


@dataclass(frozen=True)
class _Counted:
    """A rater's votes of one arm."""

    mean: float
    given: int

    @property
    def votes(self) -> int:
        return min(self.given, MOST_VOTES)


_Raters = Mapping[str, _Counted]


def decide(votes: Iterable[Vote], tried: Arm, terms: Terms) -> Decision:
    """What the votes say of a rule whose changed answers are in the arm `tried`.

    Of a canary: wait, promote or reject. Of an active one: wait or roll back. Votes in other arms
    than that and the control do not count.
    """
    if tried not in {Arm.CANARY, Arm.ACTIVE}:
        raise ValueError(f"answers in the arm {tried} are not changed by the rule")
    by_arm = _by_arm(votes)
    with_it, without = by_arm.get(tried, {}), by_arm.get(Arm.CONTROL, {})
    sides = _side(with_it), _side(without)
    for_it = tried is Arm.CANARY and sides[0].mean > sides[1].mean
    needed = (1 / terms.error) ** (1.0 if for_it else _AGAINST)
    evidence = _evidence(with_it, without) if all(side.votes for side in sides) else 1.0
    enough = all(side.votes >= terms.votes and side.raters >= terms.raters for side in sides)
    verdict = Verdict.WAIT
    if enough and evidence >= needed and not (for_it and _is_of_few(with_it, without, needed)):
        verdict = _verdict(sides[0].mean - sides[1].mean, tried)
    return Decision(verdict, *sides, evidence=evidence, needed=needed)


def _verdict(lift: float, tried: Arm) -> Verdict:
    if tried is Arm.ACTIVE:
        return Verdict.ROLL_BACK if lift < 0 else Verdict.WAIT
    return Verdict.PROMOTE if lift > 0 else Verdict.REJECT


def _by_arm(votes: Iterable[Vote]) -> Mapping[Arm, _Raters]:
    scores: dict[Arm, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        scores[vote.arm][vote.rater].append(vote.score)
    return {
        arm: {
            rater: _Counted(math.fsum(given) / len(given), len(given))
            for rater, given in sorted(by_rater.items())
        }
        for arm, by_rater in scores.items()
    }


def _side(raters: _Raters) -> Side:
    votes = sum(each.votes for each in raters.values())
    total = math.fsum(each.votes * each.mean for each in raters.values())
    given = sum(each.given for each in raters.values())
    return Side(given, votes, len(raters), total / votes if votes else 0.5)


def _evidence(with_it: _Raters, without: _Raters) -> float:
    """The likelihood ratio of a lift drawn around 0 against no lift."""
    tried, control = _side(with_it), _side(without)
    variance = max(_as_votes(with_it, without), _as_raters(with_it, without))
    lift, prior = tried.mean - control.mean, _TYPICAL_LIFT**2
    exponent = prior * lift**2 / (2 * variance * (variance + prior))
    weight = exponent + 0.5 * math.log(variance / (variance + prior))
    return math.exp(min(weight, _MOST_WEIGHT))


def _as_votes(with_it: _Raters, without: _Raters) -> float:
    """The variance of the lift if every vote were independent of the others.

    Of scores between 0 and 1 none have a larger one than those that are 0 or 1. One vote each way
    is added, so that it is not 0 where all agree.
    """
    sides = _side(with_it), _side(without)
    total = sum(side.votes for side in sides)
    mean = (math.fsum(side.votes * side.mean for side in sides) + 1) / (total + 2)
    parts = (
        math.fsum(each.votes**2 / each.given for each in raters.values()) / side.votes**2
        for raters, side in zip((with_it, without), sides, strict=True)
    )
    return mean * (1 - mean) * math.fsum(parts)


def _as_raters(with_it: _Raters, without: _Raters) -> float:
    """The variance of the lift if all that a rater says, in both arms, hangs together."""
    parts = _parts(with_it, without)
    spread = math.fsum(part**2 for part in parts.values())
    return spread * len(parts) / (len(parts) - 1) if len(parts) > 1 else spread


def _is_of_few(with_it: _Raters, without: _Raters, needed: float) -> bool:
    """Whether little evidence is left without the few raters who speak most for the rule."""
    parts = _parts(with_it, without)
    loudest = sorted(parts, key=lambda rater: parts[rater], reverse=True)
    silenced = set(loudest[: math.ceil(len(parts) * _LOUDEST)])
    rest = [
        {rater: each for rater, each in raters.items() if rater not in silenced}
        for raters in (with_it, without)
    ]
    if not all(rest) or _side(rest[0]).mean <= _side(rest[1]).mean:
        return True
    return _evidence(*rest) < math.pow(needed, _LEFT)


def _parts(with_it: _Raters, without: _Raters) -> dict[str, float]:
    """What each rater adds to the lift, beyond what all do on average."""
    parts: dict[str, float] = defaultdict(float)
    for raters, sign in ((with_it, 1), (without, -1)):
        side = _side(raters)
        for rater, each in raters.items():
            parts[rater] += sign * each.votes * (each.mean - side.mean) / side.votes
    return parts
