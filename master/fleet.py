"""What this replica knows of models and workers, refreshed every second.

Planning reads it, the dispatch window reads it, `/v1/queues` reads it; nobody asks the database
on a request's own path.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus, BusError
from db import workers
from db.workers import ModelLoad
from master.batches import is_outage
from master.planning.question import Fleet
from master.retry import RetryBudget
from queue_schemas import topology
from queue_schemas.registry import Model, Registry

log = structlog.get_logger(__name__)

_BROKER_SECONDS = 5.0
"""A broker that is away must not stop the looking."""


def queues(registry: Registry) -> list[topology.Queue]:
    """Every shared queue of an installation."""
    models = [topology.subtasks(model.slug) for model in registry.chat_models()]
    return [*topology.SHARED, *models]


def absent(registry: Registry, live: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The models that no worker takes subtasks of, with words for who waits for one."""
    served = {worker["model"] for worker in live if not worker["draining"]}
    return {
        model.name: f"Starting {model.name}, no worker is running yet"
        if model.min_workers == 0
        else f"Waiting for {model.name}, no worker is ready"
        for model in registry.chat_models()
        if model.name not in served
    }


class Storing:
    """Subtasks whose requests are being stored, by model: no look at the database has seen them.

    A look that began before such a request was committed may say nothing of it, however late it
    ends; whoever trusts it would admit a whole burst as if it were one.
    """

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()

    def begin(self, models: Mapping[str, int]) -> None:
        """These are about to be stored."""
        self._begun.update(models)

    def end(self, models: Mapping[str, int]) -> None:
        """These are stored, or never will be."""
        self._ended.update(models)

    def mark(self) -> Counter[str]:
        """To be taken before a look."""
        return self._ended.copy()

    def since(self, mark: Counter[str]) -> Counter[str]:
        """What a look that began at the mark may have missed."""
        return self._begun - mark


@dataclass
class FleetView:
    """The latest look at the fleet. `registry` is called each time, so that a reload counts."""

    registry: Callable[[], Registry]
    window: int
    loads: Mapping[str, ModelLoad] = field(default_factory=dict)
    workers: list[dict[str, Any]] = field(default_factory=list)
    absent: Mapping[str, str] = field(default_factory=dict)
    """Models that no worker takes subtasks of, in words; none before the first look."""
    unpublishable_seconds: float = 0.0
    """How long the broker has been refusing the oldest message."""
    published: dict[str, int] = field(default_factory=dict)
    """Put on a model's queue since the last look, less what has come back since."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Outbox rows that are due, by model; kept up between two looks."""
    publishing: Storing = field(default_factory=Storing)
    """Counted in `published` already."""
    enqueuing: Storing = field(default_factory=Storing)
    """Counted in `waiting` already."""
    retries: RetryBudget = field(default_factory=dict)
    """What each model may still retry at once."""

    def fleet(self) -> Fleet:
        """As planning wants it."""
        registry = self.registry()
        running: dict[str, int] = {}
        slots: dict[str, int] = {}
        for worker in self.workers:
            if not worker["draining"]:
                name = worker["model"]
                slots[name] = slots.get(name, 0) + worker["slots"]
                running[name] = running.get(name, 0) + worker["running"]
        return Fleet(
            registry=registry,
            tokens_per_second={
                name: load.tokens_per_second
                for name, load in self.loads.items()
                if load.tokens_per_second
            },
            free_slots={name: max(0, slots[name] - running[name]) for name in slots},
            backlog={
                name: load.ready + load.queued + load.running for name, load in self.loads.items()
            },
        )

    def room(self, model: Model) -> int:
        """How many more subtasks may go onto the model's queue now.

        Deep enough that KEDA sees it must scale to its maximum, short enough that a newcomer is
        not behind somebody's hundred.
        """
        load = self.loads.get(model.name, ModelLoad())
        depth = max(0, load.queued + self.published.get(model.name, 0))
        return max(0, self.window * model.max_workers * model.slots - depth)

    def backlog(self, model: str) -> int:
        """Subtasks of a model that wait, published or not."""
        load = self.loads.get(model, ModelLoad())
        unpublished = max(load.ready, self.waiting.get(model, 0))  # many may have come since
        return max(0, unpublished + load.queued + self.published.get(model, 0))

    def expected_wait_seconds(self, model: Model, ahead: int | None = None) -> float | None:
        """Until a subtask with so many before it starts; None while nothing was measured.

        Without a number it is a newcomer, which has the whole backlog before it.
        """
        ahead = self.backlog(model.name) if ahead is None else ahead
        seconds = self.loads.get(model.name, ModelLoad()).seconds_per_subtask
        slots = sum(w["slots"] for w in self.workers if w["model"] == model.name)
        return ahead * seconds / slots if seconds and slots else None

    def count_published(self, model: str, number: int = 1) -> None:
        """Remember what was put on a queue since the last look."""
        self.published[model] = self.published.get(model, 0) + number

    def note_waiting(self, looked: Mapping[str, int], mark: Counter[str]) -> None:
        """What a look found that began at this mark of `enqueuing`."""
        self.waiting = dict(self.enqueuing.since(mark) + Counter(looked))

    async def refresh(self, engine: AsyncEngine, worker_seconds: float) -> None:
        """Look again."""
        mark = self.enqueuing.mark()
        unseen = self.publishing.since(self.publishing.mark())
        counted, self.published = self.published, dict(unseen)
        try:
            async with engine.connect() as connection:
                self.loads = await workers.loads(connection)
                waiting = {name: load.waiting for name, load in self.loads.items()}
                self.note_waiting(waiting, mark)
                self.workers = await workers.live(connection, worker_seconds)
                self.absent = absent(self.registry(), self.workers)
                self.unpublishable_seconds = await workers.unpublishable_seconds(connection)
        except BaseException:
            for model, number in counted.items():
                self.count_published(model, number - unseen[model])
            raise

    async def watch(
        self,
        engine: AsyncEngine,
        bus: Bus,
        every_seconds: float,
        worker_seconds: float,
    ) -> None:
        """Refresh until cancelled, and keep the queues in being."""
        declared = self.registry()
        while True:
            try:
                await self.refresh(engine, worker_seconds)
                async with asyncio.timeout(_BROKER_SECONDS):
                    declared = await self._declare(bus, declared)
            except Exception as error:
                if not (is_outage(error) or isinstance(error, BusError)):
                    log.error("fleet.failed", exc_info=error)
                else:
                    log.warning("fleet.outage", error=str(error))
            await asyncio.sleep(every_seconds)

    async def _declare(self, bus: Bus, declared: Registry) -> Registry:
        """Declare what a reload brought; all of it when the broker came back without its queues."""
        latest = self.registry()
        if latest is not declared or await bus.depth(topology.DEAD.name) is None:
            await bus.declare(queues(latest))
            log.info("fleet.declared", queues=len(queues(latest)))
        return latest
