"""The lines of a bill: sums of the ledger, with prices. Pure and exact."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Self

from db.usage import Fate, Spent
from queue_schemas.registry import Registry

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Sums:
    """What some executions took."""

    executions: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    engine_seconds: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.executions + other.executions,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.engine_seconds + other.engine_seconds,
            self.cost + other.cost,
        )

    @classmethod
    def of(cls, spent: Spent, registry: Registry) -> Self:
        """With the price of its model; a model that left the registry costs nothing."""
        model = registry.get(spent.model)
        # By way of str: the price as it was written, not as binary made it.
        prompt = Decimal(str(model.price.prompt)) if model else Decimal(0)
        completion = Decimal(str(model.price.completion)) if model else Decimal(0)
        cost = (spent.prompt_tokens * prompt + spent.completion_tokens * completion) / _MILLION
        return cls(
            spent.executions,
            spent.prompt_tokens,
            spent.completion_tokens,
            spent.engine_seconds,
            cost,
        )

    def as_json(self) -> dict[str, Any]:
        """With plain numbers."""
        return {name: float(v) if isinstance(v, Decimal) else v for name, v in asdict(self).items()}


@dataclass(frozen=True)
class Line:
    """One tenant, model, user or day."""

    key: str
    fates: Mapping[Fate, Sums] = field(default_factory=dict)

    @property
    def counted(self) -> Sums:
        """What went into answers."""
        return self.fates.get(Fate.ANSWERED, Sums())

    @property
    def not_counted(self) -> Sums:
        """What was spent all the same."""
        return _sum(sums for fate, sums in self.fates.items() if fate is not Fate.ANSWERED)


def bill_lines(spent: Iterable[Spent], registry: Registry) -> list[Line]:
    """The ledger's sums, priced and put together by key."""
    lines: dict[str, dict[Fate, Sums]] = {}
    for row in spent:
        fates = lines.setdefault(row.key, {})
        fates[row.fate] = fates.get(row.fate, Sums()) + Sums.of(row, registry)
    return [Line(key, fates) for key, fates in lines.items()]


def total(lines: Sequence[Line]) -> Line:
    """All lines as one."""
    fates = {fate: _sum(line.fates[fate] for line in lines if fate in line.fates) for fate in Fate}
    return Line("Total", {fate: sums for fate, sums in fates.items() if sums.executions})


def _sum(several: Iterable[Sums]) -> Sums:
    return sum(several, start=Sums())
