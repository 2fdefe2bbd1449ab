"""Sweep: what nobody else would notice. Expired leases, overdue requests, forgotten messages.

Never by age alone: a subtask that merely waits in its queue is left there. All clocks are the
database's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog
from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.protocol import Bus, BusError
from db import leases, outbox, requests, subtasks
from db.requests import LockedRequest
from db.subtasks import StoredSubtask
from master import retry
from master.announce import broadcast
from master.apply import Applied, Result, advance, settle
from master.attempts import Limits, Setback, after_loss
from master.batches import LONGEST_PAUSE_SECONDS
from master.cancel import EXPIRED, Stopped, count_stopped, end_early, tell_stopped
from master.collect import note, tell
from master.dispatch import Dispatcher
from master.fleet import FleetView
from master.hearing import Hearing
from master.metrics.chats import Cause, RetryReason, count_cancel
from master.metrics.loops import Loop
from master.outages import Failures, answer_within, is_away, is_outage, said
from master.progress import Progress
from master.settings import MasterSettings
from master.streams import Streams
from queue_schemas import topology
from queue_schemas.messages import Cancel, ErrorKind, Failed
from queue_schemas.registry import Model
from queue_schemas.states import SubtaskState

log = structlog.get_logger(__name__)

_Row = TypeVar("_Row")

_ONE_SWEEPER = 7_421_002
_AT_ONCE = 200
_FORGOTTEN_EVERY = 10
_BROKER_SECONDS = 3.0
_SILENT_SECONDS = 60.0
_MOST_OVERDUE = 10_000
_LATE = '{"kind": "permanent", "code": "too_slow", "message": "it took longer than it may"}'


class Sweeper:
    """The loop of one replica; an advisory lock lets only one of them sweep at a time."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: Bus,
        view: FleetView,
        dispatcher: Dispatcher,
        streams: Streams,
        settings: MasterSettings,
        hearing: Hearing | None = None,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._view = view
        self._dispatcher = dispatcher
        self._streams = streams
        self._settings = settings
        self._limits = Limits.of(settings)
        self._key = settings.key_ring
        self._hearing = hearing or Hearing(settings.lease_seconds)
        self._silent_until: dict[str, float] = {}
        """Models whose queues did not answer, and when they are asked again."""

    async def run(self) -> None:
        """Sweep until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hearing.watch(), name="hearing")
            await self._sweep()

    async def _sweep(self) -> None:
        failures, rounds = Failures(Loop.SWEEP, log), 0
        while True:
            try:
                await self.expire_requests()
                await self.give_up_late()
                await self._rescue_silent()
                if rounds % _FORGOTTEN_EVERY == 0:
                    await self.enqueue_unsent()
                    await self.republish_forgotten()
            except Exception as error:
                failures.met(error)
                if is_away(error) or isinstance(error, BusError):
                    self._hearing.begin_anew(2 * LONGEST_PAUSE_SECONDS)
            else:
                failures.over()
            rounds += 1
            await asyncio.sleep(self._settings.sweep_seconds)

    async def expire_requests(self) -> None:
        """Give overdue requests their terminal state, and stop their subtasks."""
        async with self._engine.connect() as connection:
            overdue = await requests.overdue(connection, _MOST_OVERDUE)
        for first in range(0, len(overdue), _AT_ONCE):
            some = overdue[first : first + _AT_ONCE]
            await _together_or_apart(some, lambda request: request, self._expire)

    async def _expire(self, overdue: Sequence[UUID]) -> None:
        stopped: list[tuple[LockedRequest, Stopped]] = []
        async with self._engine.begin() as connection:
            for locked in (await requests.lock_free(connection, overdue)).values():
                halted = await end_early(connection, locked, EXPIRED)
                if halted is not None:
                    stopped.append((locked, halted))
        for locked, halted in stopped:
            log.info("sweep.expired", request=str(locked.id))
            count_cancel(Cause.DEADLINE)
            count_stopped(locked, EXPIRED, halted)
        for locked, halted in stopped:
            told = (locked, EXPIRED, halted.subtasks)
            await tell_stopped(self._bus, self._streams, self._key, *told)

    async def give_up_late(self) -> None:
        """End subtasks that took longer than their plan lets them; it goes on without them."""
        async with self._engine.connect() as connection:
            late = await subtasks.late(connection, _AT_ONCE)
        await _together_or_apart(late, lambda subtask: subtask.request, self._give_up)

    async def _give_up(self, late: Sequence[StoredSubtask]) -> None:
        async with self._engine.begin() as connection:
            concerned = {subtask.request for subtask in late}
            applied = Applied(requests=await requests.lock_free(connection, concerned))
            ids = sorted(applied.requests)
            ended = [
                subtask
                for subtask in late
                if subtask.request in applied.requests
                and await subtasks.end(
                    connection,
                    subtask.id,
                    subtask.attempt,
                    SubtaskState.FAILED,
                    error=_LATE,
                )
            ]
            steps = await subtasks.of_requests(connection, ids)
            concerned = {subtask.request for subtask in ended}
            await settle(connection, concerned, steps, {}, self._view, applied)
        for subtask in ended:
            applied.note_ending(subtask.request, subtask.model, SubtaskState.FAILED)
        note(applied)
        for subtask in ended:
            log.info(
                "sweep.late",
                request=str(subtask.request),
                subtask=str(subtask.id),
                step=subtask.step,
            )
            await broadcast(self._bus, Cancel(subtasks=(subtask.id,)), self._key)
        await tell(applied, self._bus, self._streams, self._dispatcher, self._key)

    async def _rescue_silent(self) -> None:
        """Take subtasks away from workers that fell silent, if they could have been heard."""
        async with self._engine.connect() as connection:
            agrees = await self._hearing.agrees(lambda: leases.clock(connection))
            if not (agrees and self._hearing.is_complete):
                return
            lost = await leases.expired(connection, _AT_ONCE)
        await self._rescue_all(lost)

    async def rescue_lost(self) -> None:
        """Take subtasks away from workers whose lease is over."""
        async with self._engine.connect() as connection:
            lost = await leases.expired(connection, _AT_ONCE)
        await self._rescue_all(lost)

    async def _rescue_all(self, lost: Sequence[leases.Lost]) -> None:
        if not lost:
            return
        await self._require_broker()
        await _together_or_apart(lost, lambda row: row.request_id, self._take_away)

    async def _take_away(self, lost: Sequence[leases.Lost]) -> None:
        async with self._engine.begin() as connection:
            if not await _alone(connection):
                return
            concerned = {row.request_id for row in lost}
            applied = Applied(requests=await requests.lock_free(connection, concerned))
            ids = sorted(applied.requests)
            ended: dict[UUID, Result] = {}
            taken = [
                row
                for row in lost
                if row.request_id in applied.requests
                and await self._rescue(connection, row, applied, ended)
            ]
            steps = await subtasks.of_requests(connection, ids)
            await advance(connection, steps, ended, self._view, applied)
        note(applied)
        for row in taken:
            log.warning(
                "sweep.lost_worker",
                request=str(row.request_id),
                subtask=str(row.id),
                attempt=row.attempt,
                execution=str(row.execution),
                worker=row.worker,
            )
            stop = Cancel(subtasks=(row.id,), execution=row.execution)
            await broadcast(self._bus, stop, self._key)
        await tell(applied, self._bus, self._streams, self._dispatcher, self._key)

    async def _rescue(
        self,
        connection: AsyncConnection,
        row: leases.Lost,
        applied: Applied,
        ended: dict[UUID, Result],
    ) -> bool:
        """Prepare another attempt, or end the subtask. False: it was not lost after all."""
        message = f"its worker {row.worker} fell silent"
        error = {"kind": ErrorKind.POISON, "code": "worker_lost", "message": message}
        stored = to_json(error).decode()
        following = await after_loss(connection, row, self._limits, self._view)
        decision = following.decision
        if isinstance(decision, retry.Again):
            moved = await subtasks.again(
                connection,
                row.id,
                row.attempt,
                execution=row.execution,
                delay_seconds=decision.delay_seconds,
                error=stored,
                lost=True,
                model=following.model,
            )
            if moved:
                applied.progress[row.request_id] = Progress(ready=True)
                applied.retries.append((row.model, RetryReason.LOST))
            return moved
        failed = Failed(
            request=row.request_id,
            subtask=row.id,
            attempt=row.attempt,
            execution=row.execution,
            delivery=row.delivery,
            worker=row.worker,
            kind=ErrorKind.POISON,
            code="worker_lost",
            message=message,
        )
        moved = await subtasks.end(
            connection,
            row.id,
            row.attempt,
            decision.state,
            error=stored,
            execution=row.execution,
            delivery=row.delivery,
            lost=True,
            # What the client saw stays in the record.
            text=self._streams.shown([failed]).get(row.id, ""),
        )
        if moved:
            ended[row.id] = failed
            applied.setbacks.append(Setback(failed, following))
            applied.note_ending(row.request_id, row.model, decision.state)
        return moved

    async def enqueue_unsent(self) -> None:
        """Give ready subtasks that lost their outbox row another one."""
        async with self._engine.begin() as connection:
            again = await outbox.enqueue_unsent(connection)
        if again:
            log.warning("sweep.enqueued", count=len(again))
            self._dispatcher.nudge()

    async def republish_forgotten(self) -> None:
        """Publish again what was confirmed long ago, where the broker's queue is empty now."""
        await self._republish_orphans()
        loads, models = self._view.loads, self._view.registry().chat_models()
        queued = [model for model in models if model.name in loads and loads[model.name].queued]
        if queued:
            await self._require_broker()
        for model in queued:
            if not await self._is_empty(model):
                continue
            async with self._engine.begin() as connection:
                again = await outbox.republish_forgotten(
                    connection, model.name, self._settings.forgotten_seconds
                )
            if again:
                log.warning("sweep.republished", model=model.name, count=len(again))
                self._dispatcher.nudge()

    async def _is_empty(self, model: Model) -> bool:
        """Whether a model's queue has no message, as far as it says."""
        if time.monotonic() < self._silent_until.get(model.name, 0.0):
            return False
        try:
            async with answer_within(_BROKER_SECONDS):
                depth = await self._bus.depth(topology.subtasks(model.slug).name)
        except BusError as error:
            # One queue may be ill while the others are well; it is not waited for in every round.
            log.warning("sweep.queue_silent", model=model.name, error=said(error))
            self._silent_until[model.name] = time.monotonic() + _SILENT_SECONDS
            return False
        return depth is None or depth.ready == 0

    async def _require_broker(self) -> None:
        """Raises BusError where heartbeats cannot be heard."""
        # While the broker is away this would wait for it, and nothing else would be swept.
        async with answer_within(_BROKER_SECONDS):
            await self._bus.depth(topology.WORKERS.name)

    async def _republish_orphans(self) -> None:
        """Queue again what waits for a model that left the registry: dispatch then gives it up.

        Of a model that this replica never knew the message may be where it belongs: that waits
        longer, and is then published by a replica that knows it.
        """
        registry = self._view.registry()
        for name, load in self._view.loads.items():
            patience = self._dispatcher.patience_seconds(name)
            if load.queued == 0 or patience is None or registry.get(name) is not None:
                continue
            age = max(patience, self._settings.forgotten_seconds)
            async with self._engine.begin() as connection:
                again = await outbox.republish_forgotten(connection, name, age)
            if again:
                log.warning("sweep.orphans", model=name, count=len(again))


async def _together_or_apart(
    rows: Sequence[_Row],
    request_of: Callable[[_Row], UUID],
    work: Callable[[Sequence[_Row]], Awaitable[None]],
) -> None:
    """Work on all rows at once; where that is refused, on each request's alone.

    One request that the database will not have must not hold up all others for ever.
    """
    if not rows:
        return
    try:
        await work(rows)
    except Exception as error:
        if is_outage(error) or isinstance(error, BusError):
            raise
        by_request: dict[UUID, list[_Row]] = {}
        for row in rows:
            by_request.setdefault(request_of(row), []).append(row)
        for request, own in by_request.items():
            try:
                await work(own)
            except Exception as refusal:
                if is_outage(refusal) or isinstance(refusal, BusError):
                    raise
                log.error("sweep.refused", request=str(request), exc_info=refusal)


async def _alone(connection: AsyncConnection) -> bool:
    """Whether this replica sweeps in this round."""
    query = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool(await connection.scalar(query, {"key": _ONE_SWEEPER}))
