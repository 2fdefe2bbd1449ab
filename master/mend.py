"""Mending what reconcile found.

Everything goes through the same guarded functions as the masters' own loops, so it may run beside
them, and twice.
"""

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from bus.peek import give_back, hold
from bus.protocol import Bus, quarantine
from db import outbox, requests, subtasks
from db import reconcile as facts
from master.apply import Applied, settle
from master.batches import Batches
from master.collect import note, tell
from master.dispatch import Dispatcher
from master.facts import Fact
from master.fleet import FleetView, queues
from master.peeked import FOREIGN, judge
from master.reconcile import Kind, Look, Scope
from master.settings import MasterSettings
from master.streams import Streams
from master.sweep import Sweeper
from queue_schemas import topology
from queue_schemas.codec import KeyRing
from queue_schemas.registry import Registry

_TRIES = 50
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Tools:
    """The parts of a master that mending needs; none of its loops runs."""

    engine: AsyncEngine
    bus: Bus
    view: FleetView
    dispatcher: Dispatcher
    streams: Streams
    sweeper: Sweeper
    key_ring: KeyRing | None


def tools(engine: AsyncEngine, bus: Bus, registry: Registry, settings: MasterSettings) -> Tools:
    """Put them together as a master does."""
    key = settings.key_ring
    view = FleetView(lambda: registry, settings.window)
    facts_of_nobody: Batches[Fact] = Batches("facts")
    dispatcher = Dispatcher(engine, bus, view, facts_of_nobody, key)
    streams = Streams(engine, bus, settings.replica, key, dispatcher.nudge)
    sweeper = Sweeper(engine, bus, view, dispatcher, streams, settings)
    return Tools(engine, bus, view, dispatcher, streams, sweeper, key)


async def mend(at: Tools, seen: Look, scope: Scope) -> None:
    """Mend what was seen, so that a second look finds nothing."""
    kinds = {finding.kind for finding in seen.findings}
    if Kind.NO_QUEUE in kinds:
        await at.bus.declare(queues(at.view.registry()))
    if scope.peek and kinds & {Kind.ORPHAN, Kind.DUPLICATE, Kind.UNREADABLE}:
        for model in at.view.registry().chat_models():
            await _clear(at, topology.subtasks(model.slug), scope.peek)
    await _publish_again(at, seen)
    async with at.engine.begin() as connection:
        await outbox.enqueue_unsent(connection)
        await facts.drop_stale(connection, scope.older_seconds)
    if kinds & {Kind.SILENT, Kind.OVERDUE}:
        await _sweep(at, scope)
    if Kind.IDLE in kinds:
        await _move_idle(at)


async def _publish_again(at: Tools, seen: Look) -> None:
    missing = [finding for finding in seen.findings if finding.kind is Kind.MISSING]
    lost = [pair for f in missing for pair in zip(f.ids, f.attempts, strict=True)]
    async with at.engine.begin() as connection:
        await outbox.republish(connection, lost)


async def _clear(at: Tools, queue: topology.Queue, limit: int) -> None:
    """Take out of a queue what nobody waits for."""
    held = await hold(at.bus, queue, limit)
    try:
        seen = await judge(at.engine, held, at.key_ring, complete=False)
        for delivery in (*seen.orphans, *seen.duplicates):
            held.remove(delivery)
            await delivery.ack()
        strange = dict.fromkeys(seen.foreign, FOREIGN)
        for delivery, reason in (strange | seen.unreadable).items():
            held.remove(delivery)
            await quarantine(at.bus, delivery, reason)
    finally:
        await give_back(at.bus, held)


async def _sweep(at: Tools, scope: Scope) -> None:
    """Do what a master's sweep does. One that sweeps at this moment does it for us."""
    for _ in range(_TRIES):
        await at.sweeper.expire_requests()
        await at.sweeper.rescue_lost()
        async with at.engine.connect() as connection:
            left = await facts.silent(connection, scope.older_seconds)
            left += await facts.overdue(connection, scope.older_seconds)
        if not left:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


async def _move_idle(at: Tools) -> None:
    async with at.engine.begin() as connection:
        ids = await facts.idle(connection)
        applied = Applied(requests=await requests.lock(connection, sorted(ids)))
        steps = await subtasks.of_requests(connection, ids)
        await settle(connection, ids, steps, {}, at.view, applied)
    note(applied)
    await tell(applied, at.bus, at.streams, at.dispatcher, at.key_ring)
