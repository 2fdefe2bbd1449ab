"""Collect: takes what workers report, writes it once, and tells those whom it concerns.

Everything that arrives while one transaction is being written shares the next one, and a message
is acknowledged only after its commit. Everything here may run on any replica, and twice.
"""

import asyncio
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus import tracing
from bus.protocol import Bus, BusError, Consumer, Delivery, quarantine
from db import leases, outbox, requests, subtasks, workers
from db.leases import Claimed
from db.requests import LockedRequest
from master import logged, spans
from master.announce import announce, broadcast, notify
from master.apply import Applied, Result, apply, is_only_a_bill
from master.attempts import Limits
from master.batches import Batches
from master.dispatch import Dispatcher
from master.facts import Confirmed, Fact, Received
from master.fleet import FleetView
from master.metrics import chats
from master.metrics.learned import count_judgements
from master.metrics.loops import Loop, count_failure
from master.onlookers import Onlookers, Sights
from master.planning.plan import StepKind
from master.settings import MasterSettings
from master.streams import Streams
from queue_schemas import topology
from queue_schemas.codec import KeyRing, UnreadableMessage, decode
from queue_schemas.messages import (
    RESULT,
    WORKER,
    Cancel,
    Completed,
    Failed,
    Heartbeat,
    Resend,
    Started,
)
from queue_schemas.states import RequestState

log = structlog.get_logger(__name__)

_PREFETCH = 1000
_EARLY_SECONDS = 0.05


@dataclass(frozen=True)
class _Batch:
    """Facts by kind. What a result of the same batch makes idle to write is left out."""

    results: list[Result]
    starts: list[Started]
    confirmed: list[Confirmed]
    all_confirmed: list[Confirmed]
    beats: list[Heartbeat]


@dataclass
class _Written:
    """A batch as it was stored, for what follows the commit."""

    settled: list[Fact]
    early: list[Fact]
    """Not stored yet: they wait for what a client elsewhere has seen."""
    sights: Sights
    batch: _Batch
    locked: Mapping[UUID, LockedRequest]
    applied: Applied | None = None
    claimed: list[Claimed] = field(default_factory=list)
    in_vain: list[Started] = field(default_factory=list)
    unclaimed: list[Started] = field(default_factory=list)


class Collector:
    """The consumers of `results` and `workers` on one replica, and its one writer."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: Bus,
        view: FleetView,
        dispatcher: Dispatcher,
        streams: Streams,
        facts: Batches[Fact],
        settings: MasterSettings,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._view = view
        self._dispatcher = dispatcher
        self._streams = streams
        self._facts = facts
        self._lease_seconds = settings.lease_seconds
        self._limits = Limits.of(settings)
        self._key = settings.key_ring
        self._onlookers = Onlookers(streams.queue.name, bus, settings.key_ring)

    async def run(self) -> None:
        """Consume until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._facts.run(self._write, self._refuse))
            consumers = [
                await self._consume(
                    topology.RESULTS, lambda d: decode(RESULT, d.body, d.headers, self._key)
                ),
                await self._consume(
                    topology.WORKERS, lambda d: decode(WORKER, d.body, d.headers, self._key)
                ),
            ]
            try:
                await asyncio.Event().wait()
            finally:
                for consumer in consumers:
                    await consumer.cancel()

    async def _consume(
        self,
        queue: topology.Queue,
        read: Callable[[Delivery], Completed | Failed | Started | Heartbeat],
    ) -> Consumer:
        async def receive(delivery: Delivery) -> None:
            try:
                message = read(delivery)
            except UnreadableMessage as error:
                log.warning("collect.unreadable", queue=queue.name, reason=str(error))
                await quarantine(self._bus, delivery, str(error))
            else:
                self._facts.put(Received(delivery, message, tracing.now()))

        return await self._bus.consume(queue, receive, prefetch=_PREFETCH)

    async def _write(self, facts: list[Fact]) -> None:
        async with self._engine.begin() as connection:
            written = await self._store(connection, facts)
        try:
            await self._follow_up(written)
        except Exception as error:
            # It is stored, and must not be stored again for this: sweep and watch will notice.
            count_failure(Loop.COLLECT)
            log.error("collect.follow_up_failed", exc_info=error)

    async def _store(self, connection: AsyncConnection, facts: list[Fact]) -> _Written:
        ids = _requests(facts)
        locked = await requests.lock(connection, ids) if ids else {}
        sights = await self._onlookers.look(connection, _results(facts), locked)
        early = [fact for fact in facts if _is_of(fact, sights.early)]
        settled = [fact for fact in facts if fact not in early] if early else facts
        batch = _sort(settled)
        written = _Written(settled, early, sights, batch, locked)
        if batch.confirmed:
            await subtasks.mark_queued(
                connection, [(fact.subtask, fact.attempt) for fact in batch.confirmed]
            )
        if batch.starts:
            written.claimed = await self._claim(connection, batch.starts)
            written.in_vain = await _in_vain(connection, batch.starts, written.claimed)
        if batch.results:
            shown = {**sights.shown, **self._streams.shown(batch.results)}
            written.applied = await apply(
                connection, batch.results, locked, self._view, self._limits, shown
            )
        if batch.all_confirmed:
            await outbox.forget_sent(
                connection, [(fact.subtask, fact.attempt) for fact in batch.all_confirmed]
            )
        if batch.beats:
            written.unclaimed = await self._hear(connection, batch.beats)
        return written

    async def _follow_up(self, written: _Written) -> None:
        """After the commit: acknowledge, and tell those who are concerned."""
        self._count(written)
        await _acknowledge(written.settled)
        spans.collected(written.settled, written.applied.counted if written.applied else ())
        await self._wait_for(written.early, written.sights)
        for start in written.unclaimed:
            self._facts.put(start)
        if written.applied is not None:
            await self._tell(written.applied, written.batch.results)
        for start in written.in_vain:
            stop = Cancel(subtasks=(start.subtask,), execution=start.execution)
            await broadcast(self._bus, stop, self._key)
        for redirect in _redirects(written.batch.starts, written.locked):
            await broadcast(self._bus, redirect, self._key)

    def _count(self, written: _Written) -> None:
        """Before all that may fail."""
        traces = spans.traces(written.settled)
        for each in written.claimed:
            trace = traces.get(each.request)
            chats.count_start(each.model, each.waited_seconds, each.delivery, trace)
        applied, results = written.applied, written.batch.results
        if applied is None:
            return
        applied.traces = traces
        for result in {result.execution: result for result in results}.values():
            if result.execution in applied.entered:
                model = applied.models[result.subtask]
                chats.count_result(model, result, counted=result.execution in applied.counted)
                if (seconds := applied.stops.get(result.execution)) is not None:
                    chats.note_stop(model, seconds, traces.get(result.request))
                self._view.count_published(model, -1)
        logged.collected(results, applied.counted, traces)
        note(applied)

    async def _wait_for(self, early: Sequence[Fact], sights: Sights) -> None:
        """Look at these results again in a moment; until then they stay unacknowledged."""
        for fact in early:
            for result in _results([fact]):
                await self._onlookers.ask(result, sights.early[result.execution])
            asyncio.get_running_loop().call_later(_EARLY_SECONDS, self._facts.put, fact)

    async def _refuse(self, fact: Fact) -> None:
        """The database refuses this one, and would again: put a result aside, drop a note."""
        if not isinstance(fact, Received):
            return
        if not isinstance(fact.message, Completed | Failed):
            await fact.delivery.reject()
            return
        try:
            await quarantine(self._bus, fact.delivery, "the database refuses it")
        except BusError:
            await fact.delivery.retry()

    async def _claim(self, connection: AsyncConnection, starts: Sequence[Started]) -> list[Claimed]:
        """Give executions their leases."""
        claimed = await leases.claim(connection, starts, self._lease_seconds)
        planning = {each.request for each in claimed if each.kind == StepKind.PLAN}
        running = {each.request for each in claimed} - planning
        await requests.begin(connection, sorted(planning), RequestState.PLANNING)
        await requests.begin(connection, sorted(running), RequestState.RUNNING)
        return claimed

    async def _hear(self, connection: AsyncConnection, beats: Sequence[Heartbeat]) -> list[Started]:
        """Renew leases; returns the claims of executions that have none."""
        await workers.see(connection, beats)
        lines = [line for beat in beats for line in beat.running]
        if not lines:
            return []
        renewed = await leases.renew(connection, lines, self._lease_seconds)
        return [
            Started(**line.model_dump(), worker=beat.worker)
            for beat in beats
            for line in beat.running
            if line.execution not in renewed
        ]

    async def _tell(self, applied: Applied, results: Sequence[Result]) -> None:
        counted = [result for result in results if result.execution in applied.counted]
        self._streams.take_results(counted)
        await tell(applied, self._bus, self._streams, self._dispatcher, self._key)


async def _in_vain(
    connection: AsyncConnection, starts: Sequence[Started], claimed: Sequence[Claimed]
) -> list[Started]:
    """The executions that got no lease, and work for nobody."""
    got = {each.subtask for each in claimed}
    refused = [start for start in starts if start.subtask not in got]
    return await leases.outrun(connection, refused) if refused else []


def _results(facts: Sequence[Fact]) -> list[Result]:
    messages = [fact.message for fact in facts if isinstance(fact, Received)]
    return [message for message in messages if isinstance(message, Completed | Failed)]


def _is_of(fact: Fact, executions: Container[UUID]) -> bool:
    return any(result.execution in executions for result in _results([fact]))


def _requests(facts: Sequence[Fact]) -> list[UUID]:
    """Every request that the facts move, in the order of locking."""
    notes = [fact.message if isinstance(fact, Received) else fact for fact in facts]
    return sorted({note.request for note in notes if not isinstance(note, Heartbeat)})


def _sort(facts: Sequence[Fact]) -> _Batch:
    messages = [fact.message for fact in facts if isinstance(fact, Received)]
    results = _results(facts)
    starts = [fact for fact in (*messages, *facts) if isinstance(fact, Started)]
    beats = {message.worker: message for message in messages if isinstance(message, Heartbeat)}
    confirmed = [fact for fact in facts if isinstance(fact, Confirmed)]
    # One that was told to stop ends nothing: its subtask may still be as ready as before.
    ended = {(r.subtask, r.attempt) for r in results if not is_only_a_bill(r)}
    executions = {result.execution for result in results}
    running = [start for start in starts if start.execution not in executions]
    begun = {(start.subtask, start.attempt) for start in running}
    return _Batch(
        results=results,
        starts=_newest(running),
        confirmed=[fact for fact in confirmed if (fact.subtask, fact.attempt) not in ended | begun],
        all_confirmed=confirmed,
        beats=list(beats.values()),
    )


def _redirects(starts: Sequence[Started], locked: Mapping[UUID, LockedRequest]) -> Iterator[Resend]:
    """What executions must send elsewhere: their messages name a replica that streams no more."""
    for start in starts:
        request = locked.get(start.request)
        if request and request.adopted and request.reply_to:
            yield Resend(subtask=start.subtask, offset=0, reasoning=0, to=request.reply_to)


def _newest(starts: list[Started]) -> list[Started]:
    """One claim a subtask: the latest delivery of the latest attempt."""
    ordered = sorted(starts, key=lambda start: (start.attempt, start.delivery))
    return list({start.subtask: start for start in ordered}.values())


async def _acknowledge(facts: Sequence[Fact]) -> None:
    for fact in facts:
        if isinstance(fact, Received):
            await fact.delivery.ack()


def note(applied: Applied) -> None:
    """After the commit, and before all that may fail: count and log what happened."""
    traces = applied.traces
    chats.count_subtask_endings(applied.endings)
    count_judgements(applied.judged)
    for request, model, waited, delivery in applied.starts:
        chats.count_start(model, waited, delivery, traces.get(request))
    for model, reason in applied.retries:
        chats.count_retry(model, reason)
    logged.setbacks(applied.setbacks, traces)
    for request, step in applied.progress.items():
        if step.ended:
            locked, trace = applied.requests[request], traces.get(request)
            chats.count_ending(locked.strategy, step.ended.state, locked.seconds, trace)
            logged.ended(locked, step.ended, trace)


async def tell(
    applied: Applied, bus: Bus, streams: Streams, dispatcher: Dispatcher, key: KeyRing | None
) -> None:
    """After the commit: wake the dispatcher, the streams and the watchers."""
    if applied.ready:
        dispatcher.nudge()
    for request, step in applied.progress.items():
        locked = applied.requests[request]
        if streams.has(request):
            if step.ended:
                streams.end(request, step.ended)
            else:
                streams.refresh_soon(request)
        if locked.reply_to and locked.reply_to != streams.queue.name:
            await notify(bus, locked.reply_to, request, key)
        if step.ended:
            await announce(
                bus, f"request.{step.ended.state}", tenant=locked.tenant, request=request
            )
