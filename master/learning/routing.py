"""Which models the judgements of a tenant prefer; kept up beside the requests' own path."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from db import evidence
from db.evidence import Evidence
from master.metrics.loops import Loop
from master.outages import Failures
from master.planning.assign import generative
from master.rules.bandit import MOST_OF_A_RATER, Tallies, Tally, Why, Work, choose
from queue_schemas.registry import Registry, cheapest

log = structlog.get_logger(__name__)

EVERY_SECONDS = 30.0
"""Between two looks at the judgements of a tenant that asks something."""
_READ_SECONDS = 3600.0
"""Until judgements are read again, also where nothing is new: old ones do not count for ever."""
_FORGOTTEN_SECONDS = 600.0
"""A tenant that has asked nothing for so long is not looked at any more."""


@dataclass(frozen=True)
class Learned:
    """The models that stand in for those that the registry prefers, by kind of work."""

    models: Mapping[str, str] = field(default_factory=dict)
    tried: frozenset[str] = frozenset()
    """Kinds of work where that is to find something out."""


@dataclass
class _Known:
    tallies: Mapping[Work, Tallies] = field(default_factory=dict)
    stamp: tuple[object, ...] = ()
    read_at: float = float("-inf")
    looked_at: float = float("-inf")
    """Whether there is anything new to read."""
    used_at: float = 0.0


class Routing:
    """What this replica knows of judgements. Until it has looked, the registry's order holds."""

    def __init__(
        self,
        engine: AsyncEngine,
        registry: Callable[[], Registry],
        *,
        learns: bool = True,
        explore_share: float = 0.0,
        dice: Random | None = None,
    ) -> None:
        self.learns = learns
        self.explore_share = explore_share
        self._engine = engine
        self._registry = registry
        self._dice = dice or Random()
        self._known: dict[UUID, _Known] = {}
        self._unknown = asyncio.Event()
        self._failures = Failures(Loop.ROUTING, log)

    def learned(self, tenant: UUID) -> Learned:
        """For one question of this tenant. Asks nobody: what is not known yet comes later."""
        if not self.learns:
            return Learned()
        known = self._known.get(tenant)
        if known is None:
            known = self._known[tenant] = _Known()
            self._unknown.set()
        known.used_at = time.monotonic()
        if self.explore_share <= 0 and not any(known.tallies.values()):
            return Learned()
        return learned_of(known.tallies, self._registry(), self.explore_share, self._dice)

    async def look(self, tenant: UUID) -> Evidence:
        """Look at the judgements of a tenant now. Raises the database's errors."""
        async with self._engine.connect() as connection:
            stamp = await evidence.stamp(connection, tenant)
            found = await evidence.of_tenant(connection, tenant, MOST_OF_A_RATER)
        now = time.monotonic()
        known = self._known.setdefault(tenant, _Known(used_at=now))
        known.tallies, known.stamp = tallies_of(found), stamp
        known.looked_at = known.read_at = now
        return found

    async def look_for_news(self, tenant: UUID) -> None:
        """The same, where there is anything new. Raises the database's errors."""
        known = self._known.get(tenant, _Known())
        known.looked_at = time.monotonic()
        async with self._engine.connect() as connection:
            stamp = await evidence.stamp(connection, tenant)
        if stamp != known.stamp or known.read_at < known.looked_at - _READ_SECONDS:
            await self.look(tenant)

    async def run(self) -> None:
        """Keep it up until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS / 3):
                    await self._unknown.wait()
            self._unknown.clear()
            for tenant in self._due(time.monotonic()):
                await self._look_again(tenant)

    def _due(self, now: float) -> list[UUID]:
        for tenant, known in list(self._known.items()):
            if known.used_at < now - _FORGOTTEN_SECONDS:
                del self._known[tenant]
        return [t for t, known in self._known.items() if known.looked_at < now - EVERY_SECONDS]

    async def _look_again(self, tenant: UUID) -> None:
        try:
            await self.look_for_news(tenant)
        except Exception as error:
            self._failures.met(error, tenant=str(tenant))
        else:
            self._failures.over()


def tallies_of(found: Evidence) -> dict[Work, Tallies]:
    """The votes by kind of work and model; kinds that this release does not know are left out."""
    tallies: dict[Work, dict[str, Tally]] = {work: {} for work in Work}
    for each in found.votes:
        if each.work in tallies:
            tallies[Work(each.work)][each.model] = Tally(each.votes, each.good, each.raters)
    return dict(tallies)


def candidates(work: Work, registry: Registry) -> list[str]:
    """The models that may do a kind of work; first the one that planning prefers by itself."""
    models = list(generative(registry.chat_models()))
    first = cheapest(models) if work is Work.PART else models[0]
    return [first.name, *(model.name for model in models if model is not first)]


def learned_of(
    tallies: Mapping[Work, Tallies], registry: Registry, explore_share: float, dice: Random
) -> Learned:
    """What was learned, where that differs from what planning does by itself."""
    models: dict[str, str] = {}
    tried: set[str] = set()
    for work in Work:
        chosen = choose(tallies.get(work, {}), candidates(work, registry), explore_share, dice)
        if chosen.why is not Why.FIRST:
            models[work.value] = chosen.model
        if chosen.why is Why.TRIED:
            tried.add(work.value)
    return Learned(models, frozenset(tried))
