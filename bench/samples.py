"""Numbers from several rounds, and what they say about a target."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """A target of DESIGN §11."""

    number: float
    at_least: bool
    unit: str = ""

    def holds(self, number: float) -> bool:
        """Whether the number is on the right side."""
        return number >= self.number if self.at_least else number <= self.number

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.number:g}{self.unit}"


@dataclass(frozen=True)
class Row:
    """One line of the table. All sequences have one entry a round."""

    row: str
    title: str
    unit: str
    ours: tuple[float, ...]
    peer: str = ""
    theirs: tuple[float, ...] = ()
    judged: tuple[float, ...] = ()
    """What the limit is held against: a ratio of each round, or our own number."""
    limit: Limit | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the median keeps to the limit; None where there is none."""
        return self.limit.holds(statistics.median(self.judged)) if self.limit else None


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds for one answer, by process, medians of the rounds."""

    row: str
    system: str
    milliseconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """What a measurement came to."""

    rows: tuple[Row, ...]
    costs: tuple[Cost, ...] = ()
    notes: tuple[str, ...] = ()


def percentile(numbers: Sequence[float], percent: float) -> float:
    """The number that so many percent do not exceed; always one that was measured."""
    return sorted(numbers)[max(0, math.ceil(len(numbers) * percent / 100) - 1)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Ours over theirs, round by round: what disturbed a round disturbed both."""
    return tuple(our / their for our, their in zip(ours, theirs, strict=True))


def cost(row: str, system: str, rounds: Sequence[dict[str, float]]) -> Cost:
    """The medians of what was spent for one answer, in milliseconds."""
    names = rounds[0]
    return Cost(
        row, system, {name: 1000 * statistics.median(r[name] for r in rounds) for name in names}
    )


def middle(numbers: Sequence[float]) -> str:
    """The median for a person."""
    return _short(statistics.median(numbers))


def spread(numbers: Sequence[float]) -> str:
    """The lowest and the highest for a person."""
    return f"{_short(min(numbers))}\u2013{_short(max(numbers))}"


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
