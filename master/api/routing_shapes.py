"""What `/v1/routing` answers with. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from db.evidence import Evidence
from master.learning.routing import candidates, tallies_of
from master.rules.bandit import Tally, Why, Work, belief, explanation, settled
from queue_schemas.registry import Registry


class RoutedModel(BaseModel):
    """What is known of a model for a kind of work."""

    model: str
    votes: float = Field(description="Of people; what one person counts is bounded.")
    raters: int
    mean: float | None = Field(description="Of the votes, 0 to 1; none: nobody voted.")
    expected: float = Field(description="The share of good answers that is believed in.")
    preferred: bool = Field(description="The registry prefers it.")
    chosen: bool
    why: str


class RoutedWork(BaseModel):
    """Which model does a kind of work."""

    kind: Work
    chosen: str
    why: Why
    counted_since: str | None = Field(description="When it was reset; none: never.")
    models: list[RoutedModel]


class RoutingTable(BaseModel):
    """`/v1/routing`."""

    object: Literal["routing"]
    mode: Literal["fixed", "learned"] = Field(description="Whether it is gone by.")
    explore_share: float
    data: list[RoutedWork]


def table(
    found: Evidence, registry: Registry, *, learns: bool, explore_share: float
) -> dict[str, Any]:
    """The state of what was learned."""
    tallies = tallies_of(found)
    return {
        "object": "routing",
        "mode": "learned" if learns else "fixed",
        "explore_share": explore_share,
        "data": [_work(work, tallies[work], found, registry) for work in Work],
    }


def _work(
    work: Work, tallies: Mapping[str, Tally], found: Evidence, registry: Registry
) -> dict[str, Any]:
    models = candidates(work, registry)
    best = settled(tallies, models)
    since = found.resets.get(work.value)
    rows = []
    for name in models:
        tally = tallies.get(name, Tally())
        preferred = name == models[0]
        row = RoutedModel(
            model=name,
            votes=round(tally.votes, 3),
            raters=tally.raters,
            mean=None if tally.mean is None else round(tally.mean, 4),
            expected=round(belief(tally, default=preferred).mean, 4),
            preferred=preferred,
            chosen=name == best.model,
            why=explanation(tallies, models, name, best.model),
        )
        rows.append(row.model_dump())
    return {
        "kind": work.value,
        "chosen": best.model,
        "why": best.why.value,
        "counted_since": since.isoformat() if since else None,
        "models": rows,
    }
