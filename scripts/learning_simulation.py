"""Does learning raise the share of good answers, and can a few people buy it?

People ask, and some of them rate. How good an answer is depends on the rules that changed it; how
it is rated depends on the person as well. Everything between is the real thing: arms are drawn by
`master.rules.matching`, votes are judged by `master.rules.trial`, with the times of
`master.learning.trials`. Seeded: the same numbers again.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from statistics import fmean, median
from uuid import UUID

from master.learning.trials import GIVEN_UP_AFTER, VOTES_COUNT, WATCHED
from master.rules import trial
from master.rules.matching import RuleInForce, arm_of
from master.rules.rule import Arm, PromptChange, RuleKind, Scope
from master.rules.trial import Terms, Verdict, Vote
from queue_schemas.states import RuleState

BASE = 0.55
"""The share of good answers without any rule."""
EFFECTS: Mapping[str, float] = {
    "better-route": 0.20,
    "clear-prompt": 0.10,
    "no-difference": 0.0,
    "harmful-prompt": -0.20,
}
SPOILED = "better-route"
"""The rule that does harm from the middle of the time on: its engine was changed."""
SPOILED_EFFECT = -0.15


@dataclass(frozen=True)
class World:
    """Who asks, who rates, and who cheats."""

    people: int = 60
    days: int = 120
    """The trials are looked at once a day."""
    questions: int = 200
    """A day."""
    rating_share: float = 0.25
    """Of the questions whose answer is rated."""
    taste: float = 0.15
    """How differently people rate: their own shift is drawn with this deviation."""
    poisoned: float = 0.0
    """The share of all votes that come from cheats."""
    cheats: int = 3
    """Who praise what the harmful rule changed, and damn everything else."""
    share: float = 0.2
    """Of a canary."""
    spoils: bool = False


@dataclass
class Tried:
    """A rule on its way."""

    name: str
    rule: RuleInForce
    since: int = 0
    """The day of its last move."""
    votes: list[tuple[int, Vote]] = field(default_factory=list)
    """Since then, each with its day."""
    history: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether it changes answers."""
        return self.rule.state in {RuleState.CANARY, RuleState.ACTIVE}

    def move(self, state: RuleState, day: int) -> None:
        """Put it into another state, where votes count anew."""
        measured = state is RuleState.ACTIVE
        self.rule = replace(self.rule, state=state, share=None, measured=measured)
        self.votes, self.since = [], day
        self.history.append(f"{state} on day {day}")


@dataclass(frozen=True)
class Outcome:
    """One run."""

    shares: Sequence[float]
    """Of good answers, by day."""
    histories: Mapping[str, Sequence[str]]
    states: Mapping[str, RuleState]


def simulate(world: World, seed: int) -> Outcome:
    """One run from no rule in force to what came of them."""
    terms = Terms()
    dice = random.Random(seed)
    rules = [_tried(name, world, dice) for name in EFFECTS]
    tastes = [dice.gauss(0, world.taste) for _ in range(world.people)]
    shares: list[float] = []
    for day in range(world.days):
        good = [_answered(rules, world, tastes, dice, day) for _ in range(world.questions)]
        shares.append(fmean(good))
        for each in rules:
            _look(each, terms, day)
    return Outcome(
        shares,
        {each.name: tuple(each.history) for each in rules},
        {each.name: each.rule.state for each in rules},
    )


def _tried(name: str, world: World, dice: random.Random) -> Tried:
    change = PromptChange(kind=RuleKind.PROMPT, text=name)
    identity = UUID(int=dice.getrandbits(128), version=4)
    canary = RuleState.CANARY
    return Tried(name, RuleInForce(identity, name, 1, Scope(), change, canary, share=world.share))


def _answered(
    rules: Sequence[Tried], world: World, tastes: Sequence[float], dice: random.Random, day: int
) -> float:
    """How likely one answer was good; whoever rates it has voted on all rules that fitted."""
    request = UUID(int=dice.getrandbits(128), version=4)
    arms = {each.name: arm_of(each.rule, request) for each in rules if each.holds}
    changed = {name for name, arm in arms.items() if arm in {Arm.CANARY, Arm.ACTIVE}}
    quality = min(max(BASE + sum(_effect(name, world, day) for name in changed), 0.0), 1.0)
    if dice.random() < world.rating_share:
        rater, score = _vote(world, tastes, dice, quality, changed)
        for each in rules:
            if each.name in arms:
                each.votes.append((day, Vote(rater, arms[each.name], score)))
    return quality


def _effect(name: str, world: World, day: int) -> float:
    spoiled = world.spoils and name == SPOILED and day >= world.days // 2
    return SPOILED_EFFECT if spoiled else EFFECTS[name]


def _vote(
    world: World,
    tastes: Sequence[float],
    dice: random.Random,
    quality: float,
    changed: set[str],
) -> tuple[str, float]:
    if dice.random() < world.poisoned:
        return f"cheat-{dice.randrange(world.cheats)}", float("harmful-prompt" in changed)
    person = dice.randrange(world.people)
    return f"person-{person}", float(dice.random() < quality + tastes[person])


def _look(each: Tried, terms: Terms, day: int) -> None:
    if not each.holds:
        return
    canary = each.rule.state is RuleState.CANARY
    kept = (VOTES_COUNT if canary else WATCHED).days
    votes = (vote for voted, vote in each.votes if voted > day - kept)
    found = trial.decide(votes, Arm.CANARY if canary else Arm.ACTIVE, terms)
    after = {
        Verdict.PROMOTE: RuleState.ACTIVE,
        Verdict.REJECT: RuleState.REJECTED,
        Verdict.ROLL_BACK: RuleState.RETIRED,
    }.get(found.verdict)
    if after is None and canary and day - each.since > GIVEN_UP_AFTER.days:
        after = RuleState.REJECTED
    if after is not None:
        each.move(after, day)


# --- what is shown ------------------------------------------------------------------------------

SCENES: Mapping[str, World] = {
    "honest votes": World(),
    "30 % of the votes from 3 cheats": World(poisoned=0.3),
    "a rule that turns bad": World(spoils=True),
    "nobody votes": World(rating_share=0.0),
}
_COLOURS = ("#4c78a8", "#e45756", "#f58518", "#9d9d9d")
_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 300, 52, 40
_LOW, _HIGH = 0.35, 0.90
_DAYS = 4
"""That one point of a line is the mean of."""


def run(seeds: int) -> dict[str, list[Outcome]]:
    """All scenes, each with so many seeds."""
    return {
        name: [simulate(world, seed) for seed in range(seeds)] for name, world in SCENES.items()
    }


def first_and_last(outcomes: Sequence[Outcome]) -> tuple[float, float, float]:
    """The share of good answers in the first and in the last tenth, and the worst last one."""
    tenth = len(outcomes[0].shares) // 10
    last = [fmean(each.shares[-tenth:]) for each in outcomes]
    return fmean(fmean(each.shares[:tenth]) for each in outcomes), fmean(last), min(last)


def table(found: Mapping[str, Sequence[Outcome]]) -> str:
    """Markdown: one line for each scene, and what became of each rule."""
    lines = [
        "| votes | first tenth | last tenth | worst seed | " + " | ".join(EFFECTS) + " |",
        "|---" * (4 + len(EFFECTS)) + "|",
    ]
    for name, outcomes in found.items():
        first, last, worst = first_and_last(outcomes)
        fates = [_fates([each.states[rule] for each in outcomes]) for rule in EFFECTS]
        cells = [name, f"{first:.3f}", f"{last:.3f}", f"{worst:.3f}", *fates]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _fates(states: Sequence[RuleState]) -> str:
    counts = {state: states.count(state) for state in RuleState}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def svg(found: Mapping[str, Sequence[Outcome]]) -> str:
    """Lines of the median share of good answers over the questions, with all seeds behind."""
    height = _TOP + _HEIGHT + 40 + 18 * len(found)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" '
        f'width="{_LEFT + _WIDTH + 20}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_LEFT + _WIDTH + 20}" height="{height}" fill="#ffffff"/>',
        _text(_LEFT, 22, "Share of good answers while rules are tried", weight="bold"),
    ]
    for tenth in range(round(_LOW * 20), round(_HIGH * 20) + 1, 2):
        y = _y(tenth / 20)
        lines.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDTH}" y2="{y:.1f}" stroke="#dddddd"/>'
        )
        lines.append(_text(_LEFT - 8, y + 4, f"{tenth / 20:.2f}", anchor="end"))
    for colour, (name, outcomes) in zip(_COLOURS, found.items(), strict=True):
        lines += [_line(each.shares, colour, 0.6, 0.18) for each in outcomes]
        middle = [median(rounds) for rounds in zip(*(o.shares for o in outcomes), strict=True)]
        lines.append(_line(middle, colour, 2.2, 1.0))
        place = _TOP + _HEIGHT + 40 + 18 * list(found).index(name)
        lines.append(f'<rect x="{_LEFT}" y="{place - 10}" width="10" height="10" fill="{colour}"/>')
        lines.append(_text(_LEFT + 16, place, name))
    last = f"{World().days} days of {World().questions} questions"
    lines.append(_text(_LEFT + _WIDTH, _TOP + _HEIGHT + 18, last, anchor="end"))
    return "\n".join([*lines, "</svg>", ""])


def _y(share: float) -> float:
    return _TOP + _HEIGHT * (_HIGH - share) / (_HIGH - _LOW)


def _line(shares: Sequence[float], colour: str, width: float, opacity: float) -> str:
    means = [fmean(shares[day : day + _DAYS]) for day in range(0, len(shares), _DAYS)]
    points = " ".join(
        f"{_LEFT + _WIDTH * (place + 0.5) / len(means):.0f},{_y(share):.0f}"
        for place, share in enumerate(means)
    )
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" '
        f'stroke-width="{width}" opacity="{opacity}"/>'
    )


def _text(x: float, y: float, said: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(said)}</text>"
    )


def main() -> None:
    """Print the table; with --svg also draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", action="store_true", help="every run, for programs")
    given = parser.parse_args()
    found = run(given.seeds)
    if given.json:
        runs = {name: [each.histories for each in own] for name, own in found.items()}
        sys.stdout.write(json.dumps(runs, indent=1) + "\n")
    else:
        sys.stdout.write(table(found) + "\n")
    if given.svg:
        given.svg.write_text(svg(found), "utf-8")


if __name__ == "__main__":
    main()
