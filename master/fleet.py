"""What this replica knows of models and workers, refreshed every second.

Planning reads it, the dispatch window reads it, `/v1/queues` reads it; nobody asks the database
on a request's own path.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus, BusError, Depth
from db import census, workers
from db.census import Census
from db.workers import ModelLoad, OutboxLoad
from master.metrics.chats import know_models
from master.metrics.loops import Loop
from master.outages import Failures, answer_within, is_away, said
from master.planning.question import Fleet
from master.retry import RetryBudget
from master.trails import Trails
from queue_schemas import topology
from queue_schemas.registry import Model, Registry

log = structlog.get_logger(__name__)

_BROKER_SECONDS = 5.0
"""A broker that is away must not stop the looking."""
_SELDOM = 5
"""What only people look at is looked at so many times less often."""
_REST = 20
"""And what takes long, at most for a twentieth of the time."""
_FRESH_SECONDS = 15.0
"""Who has not answered for so long is away; what was seen is believed for so long."""


class Dependency(StrEnum):
    """What a master cannot do without."""

    DATABASE = "database"
    BROKER = "broker"


class Look(StrEnum):
    """What this replica does again and again to know how things stand."""

    TABLES = "tables"
    """Subtasks, workers and the outbox."""
    CENSUS = "census"
    DECLARED = "declared"
    """Whether the queues are there."""
    DEPTHS = "depths"
    """How full they are."""

    @property
    def dependency(self) -> Dependency:
        """Who is asked."""
        of_broker = self in {Look.DECLARED, Look.DEPTHS}
        return Dependency.BROKER if of_broker else Dependency.DATABASE


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
    outbox: OutboxLoad = field(default_factory=OutboxLoad)
    census: Census | None = None
    """None until the first count."""
    depths: Mapping[str, Depth] = field(default_factory=dict)
    """Of the queues of models, by model; none of those that are missing at the broker."""
    quarantined: int = 0
    """Messages that nobody could read, and nobody has looked at."""
    answered: dict[Dependency, float] = field(default_factory=dict)
    """When each last did, on the monotonic clock; only of those that did not fail since."""
    fresh_until: dict[Look, float] = field(default_factory=dict)
    """How long what each look has seen is believed, on the monotonic clock."""
    trails: Trails = field(default_factory=Trails)
    _declared: Registry | None = None
    """What the broker was told of last."""
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
                name: load.ready + load.delayed + load.queued + load.running
                for name, load in self.loads.items()
            },
        )

    def room(self, model: Model) -> int:
        """How many more subtasks may go onto the model's queue now.

        Deep enough that KEDA sees it must scale to its maximum, short enough that a newcomer is
        not behind somebody's hundred.
        """
        load = self.loads.get(model.name, ModelLoad())
        depth = max(0, load.queued + self.published.get(model.name, 0))
        return max(0, self.depth(model) - depth)

    def depth(self, model: Model) -> int:
        """The most that may be on the model's queue at once."""
        return self.window * model.max_workers * model.slots

    def _depths(self) -> dict[str, int]:
        """Subtasks of every model that chats that are due and have not ended."""
        loads = {m.name: self.loads.get(m.name, ModelLoad()) for m in self.registry().chat_models()}
        return {name: load.ready + load.queued + load.running for name, load in loads.items()}

    def backlog(self, model: str) -> int:
        """Subtasks of a model that are not begun, also those that pause before their next try.

        An engine that sends all of them away for a while must not make room for as many more.
        """
        load = self.loads.get(model, ModelLoad())
        due = max(load.ready, self.waiting.get(model, 0))  # many may have come since
        return max(0, due + load.delayed + load.queued + self.published.get(model, 0))

    def expected_wait_seconds(self, model: Model, ahead: int | None = None) -> float | None:
        """Until a subtask with so many before it starts; None while nothing was measured.

        Without a number it is a newcomer, which has the whole backlog before it.
        """
        ahead = self.backlog(model.name) if ahead is None else ahead
        seconds = self.loads.get(model.name, ModelLoad()).seconds_per_subtask
        slots = sum(w["slots"] for w in self.workers if w["model"] == model.name)
        return ahead * seconds / slots if seconds and slots else None

    @property
    def unpublishable_seconds(self) -> float:
        """How long the broker has been refusing the oldest message."""
        return self.outbox.unpublishable_seconds

    def is_up(self, dependency: Dependency, now: float) -> bool:
        """Whether it answered lately, by the monotonic clock."""
        return now - self.answered.get(dependency, -_FRESH_SECONDS) < _FRESH_SECONDS

    def is_fresh(self, look: Look, now: float) -> bool:
        """Whether what it saw may still be so."""
        return now < self.fresh_until.get(look, now)

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
                know_models(self.registry())
                self.workers = await workers.live(connection, worker_seconds)
                self.absent = absent(self.registry(), self.workers)
                self.outbox = await workers.outbox_load(connection)
                self.trails.note(self._depths(), time.monotonic())
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
        self._declared = self.registry()
        seldom = _SELDOM * every_seconds
        async with asyncio.TaskGroup() as group:
            for look, work, seconds in (
                (Look.TABLES, lambda: self.refresh(engine, worker_seconds), every_seconds),
                (Look.CENSUS, lambda: self._count(engine), seldom),
                (Look.DECLARED, lambda: self._declare(bus), every_seconds),
                (Look.DEPTHS, lambda: self._measure(bus), seldom),
            ):
                group.create_task(self._often(look, work, seconds))

    async def _often(
        self, look: Look, work: Callable[[], Awaitable[None]], every_seconds: float
    ) -> None:
        failures = Failures(Loop.FLEET, log, look=look.value)
        while True:
            began, pause = time.monotonic(), every_seconds
            try:
                await work()
            except Exception as error:
                failures.met(error)
                if is_away(error) or isinstance(error, BusError):
                    self.answered.pop(look.dependency, None)
            else:
                failures.over()
                now = time.monotonic()
                if look is Look.CENSUS:
                    pause += _REST * (now - began)
                self.answered[look.dependency] = now
                self.fresh_until[look] = now + pause + _FRESH_SECONDS
            await asyncio.sleep(pause)

    async def _count(self, engine: AsyncEngine) -> None:
        """Count what grows slowly and may be much."""
        async with engine.connect() as connection:
            self.census = await census.take(connection)

    async def _declare(self, bus: Bus) -> None:
        """Declare what a reload brought; all of it when the broker came back without its queues."""
        latest = self.registry()
        async with answer_within(_BROKER_SECONDS):
            if latest is not self._declared or await bus.depth(topology.DEAD.name) is None:
                await bus.declare(queues(latest))
                log.info("fleet.declared", queues=len(queues(latest)))
        self._declared = latest

    async def _measure(self, bus: Bus) -> None:
        """Ask how full the queues are. Of one that does not answer nothing is known."""
        quarantine = await _depth(bus, topology.QUARANTINE)
        self.quarantined = quarantine.ready if quarantine else 0
        found: dict[str, Depth] = {}
        for model in self.registry().chat_models():
            try:
                depth = await _depth(bus, topology.subtasks(model.slug))
            except BusError as error:
                log.warning("fleet.queue_silent", model=model.name, error=said(error))
            else:
                if depth is not None:
                    found[model.name] = depth
        self.depths = found


async def _depth(bus: Bus, queue: topology.Queue) -> Depth | None:
    async with answer_within(_BROKER_SECONDS):
        return await bus.depth(queue.name)
