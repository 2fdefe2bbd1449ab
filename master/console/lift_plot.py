"""The trial of a rule as two drawings: how good answers are with it and without it. Pure.

Colours come from the style sheet by classes. Every drawing says in words what it shows.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup

from master.rules.rule import Arm
from master.rules.trial import MOST_VOTES, Decision, Side

_Z: Final = 1.96
"""Of a normal distribution: 95 % are nearer."""
_MOST_POINTS: Final = 120
_WIDTH, _LEFT, _RIGHT, _TOP, _HIGH = 360, 64, 12, 14, 120
_SCALE: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_NAMES: Final = ("with it", "without")
_CLASSES: Final = ("lift-with", "lift-without")


@dataclass(frozen=True)
class DatedVote:
    """What a person said of one answer, 0 to 1, and when."""

    at: datetime
    rater: str
    arm: Arm
    score: float


def interval(side: Side) -> tuple[float, float]:
    """Where the mean may be: Wilson's 95 % interval of the votes that count; 0 to 1 without any."""
    if not side.votes:
        return 0.0, 1.0
    n, z2 = side.votes, _Z**2
    middle = (side.mean + z2 / (2 * n)) / (1 + z2 / n)
    reach = _Z / (1 + z2 / n) * math.sqrt(side.mean * (1 - side.mean) / n + z2 / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def running_means(votes: Iterable[DatedVote]) -> list[tuple[datetime, float]]:
    """The mean of one arm after each vote, counted as the trial counts it."""
    given: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    total, counted, means = 0.0, 0, []
    for vote in sorted(votes, key=lambda vote: vote.at):
        scores, number = given[vote.rater]
        old = _counts(scores, number)
        given[vote.rater] = scores + vote.score, number + 1
        new = _counts(scores + vote.score, number + 1)
        total, counted = total + new[0] - old[0], counted + new[1] - old[1]
        means.append((vote.at, min(1.0, max(0.0, total / counted))))
    return means


def _counts(scores: float, number: int) -> tuple[float, int]:
    """What a rater with so many votes adds to the sum, and to the number of those that count."""
    weight = min(number, MOST_VOTES)
    return (scores / number * weight if number else 0.0), weight


def rates(found: Decision) -> Markup:
    """The two means with their intervals."""
    sides = (found.tried, found.control)
    said = "; ".join(
        f"{name} {side.mean:.2f}, between {low:.2f} and {high:.2f}, of {side.votes} votes"
        if side.votes
        else f"{name} no votes"
        for name, side in zip(_NAMES, sides, strict=True)
        for low, high in [interval(side)]
    )
    rows = [_row(place, side) for place, side in enumerate(sides)]
    floor = _TOP + 2 * 40
    return _svg("How good answers are", said, floor + 24, [*_columns(floor), *rows])


def _row(place: int, side: Side) -> str:
    y, name, kind = _TOP + 20 + 40 * place, _NAMES[place], _CLASSES[place]
    label = f'<text class="lift-label" x="{_LEFT - 8}" y="{y + 4}">{name}</text>'
    if not side.votes:
        return f'{label}<text class="lift-none" x="{_LEFT + 6}" y="{y + 4}">no votes yet</text>'
    low, high = (_x(bound) for bound in interval(side))
    ends = "".join(
        f'<line class="{kind}" x1="{x:.1f}" y1="{y - 6}" x2="{x:.1f}" y2="{y + 6}"/>'
        for x in (low, high)
    )
    return (
        f'{label}<line class="{kind}" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>{ends}'
        f'<circle class="{kind}" cx="{_x(side.mean):.1f}" cy="{y}" r="5"/>'
    )


def _columns(floor: int) -> Iterator[str]:
    for value in _SCALE:
        x = _x(value)
        yield f'<line class="lift-grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{floor}"/>'
        yield f'<text class="lift-tick" x="{x:.1f}" y="{floor + 16}">{value:g}</text>'


def _x(value: float) -> float:
    return _LEFT + value * (_WIDTH - _LEFT - _RIGHT)


def over_time(votes: Sequence[DatedVote], tried: Arm) -> Markup:
    """The means of both arms from the first vote to the last; empty with fewer than two votes."""
    arms = [
        running_means(vote for vote in votes if vote.arm is arm) for arm in (tried, Arm.CONTROL)
    ]
    times = [at for means in arms for at, _ in means]
    if len(times) < 2:
        return Markup("")
    first, last = min(times), max(times)
    said = f"From {first:%Y-%m-%d} to {last:%Y-%m-%d}: " + "; ".join(
        f"{name} {means[0][1]:.2f} at first, {means[-1][1]:.2f} at last, {len(means)} votes"
        if means
        else f"{name} no votes"
        for name, means in zip(_NAMES, arms, strict=True)
    )
    lines = [
        _line(means, kind, first, last) for means, kind in zip(arms, _CLASSES, strict=True) if means
    ]
    floor = _TOP + _HIGH
    parts = [*_lines_across(), *lines, *_dates(first, last, floor)]
    return _svg("The means over time", said, floor + 24, parts)


def _line(
    means: Sequence[tuple[datetime, float]], kind: str, first: datetime, last: datetime
) -> str:
    span = (last - first).total_seconds() or 1.0
    step = math.ceil(len(means) / _MOST_POINTS)
    shown = [*means[:: step or 1], means[-1]]
    points = " ".join(
        f"{_x((at - first).total_seconds() / span):.1f},{_y(mean):.1f}" for at, mean in shown
    )
    x, y = points.rsplit(" ", 1)[-1].split(",")
    end = f'<circle class="{kind}" cx="{x}" cy="{y}" r="4"/>'
    return f'<polyline class="{kind}" points="{points}"/>{end}'


def _lines_across() -> Iterator[str]:
    for value in _SCALE:
        y = _y(value)
        yield f'<line class="lift-grid" x1="{_LEFT}" y1="{y:g}" x2="{_WIDTH - _RIGHT}" y2="{y:g}"/>'
        yield f'<text class="lift-label" x="{_LEFT - 8}" y="{y + 4:g}">{value:g}</text>'


def _dates(first: datetime, last: datetime, floor: int) -> Iterator[str]:
    for x, at, kind in ((_LEFT, first, "lift-first"), (_WIDTH - _RIGHT, last, "lift-label")):
        yield f'<text class="{kind}" x="{x}" y="{floor + 18}">{at:%d %b %Y}</text>'


def _y(value: float) -> float:
    return _TOP + (1 - value) * _HIGH


def _svg(title: str, said: str, height: int, parts: Iterable[str]) -> Markup:
    name = title.lower().replace(" ", "-")
    head = Markup(
        '<svg class="lift" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
        '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
    ).format(_WIDTH, height, name, name, name, title, name, said)
    return head + Markup("".join(parts) + "</svg>")  # noqa: S704  numbers and constants of ours
