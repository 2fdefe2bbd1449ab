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
from master.metrics.chats import Cause, RetryReason, count_cancel
from master.metrics.loops import Loop
from master.outages import Failures, answer_within, is_away, is_outage
from master.progress import Progress
from master.settings import MasterSettings
from master.streams import Streams
from queue_schemas import topology
from queue_schemas.messages import Cancel, ErrorKind, Failed
from queue_schemas.states import SubtaskState

log = structlog.get_logger(__name__)

_Row = TypeVar("_Row")

_ONE_SWEEPER = 7_421_002
_AT_ONCE = 200
_FORGOTTEN_EVERY = 10
_BROKER_SECONDS = 3.0
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
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._view = view
        self._dispatcher = dispatcher
        self._streams = streams
        self._settings = settings
        self._limits = Limits.of(settings)
        self._key = settings.key_ring
        self._deaf_until = time.monotonic() + settings.lease_seconds
        """Every lease begins anew with this process, and after an outage: nobody was heard."""
        self._awake_at = time.monotonic()

    async def run(self) -> None:
        """Sweep until cancelled."""
        failures, rounds = Failures(Loop.SWEEP, log), 0
        while True:
            try:
                await self.expire_requests()
                await self.give_up_late()
                self._notice_standing_still()
                if time.monotonic() >= self._deaf_until:
                    await self.rescue_lost()
                if rounds % _FORGOTTEN_EVERY == 0:
                    await self.enqueue_unsent()
                    await self.republish_forgotten()
            except Exception as error:
                failures.met(error)
                self._awake_at = time.monotonic()
                if is_away(error) or isinstance(error, BusError):
                    deaf = self._settings.lease_seconds + 2 * LONGEST_PAUSE_SECONDS
                    self._deaf_until = time.monotonic() + deaf
            else:
                failures.over()
            rounds += 1
            await asyncio.sleep(self._settings.sweep_seconds)

    def _notice_standing_still(self) -> None:
        """A process that was stopped for a while has not read the heartbeats of that time."""
        now = time.monotonic()
        stood = now - self._awake_at - self._settings.sweep_seconds
        self._awake_at = now
        # Settings see to it that a lease outlasts two heartbeats: a shorter stop costs none.
        if stood > self._settings.lease_seconds / 2:
            log.warning("sweep.stood_still", seconds=round(stood, 1))
            self._deaf_until = max(self._deaf_until, now + self._settings.lease_seconds)

    async def expire_requests(self) -> None:
        """Give overdue requests their terminal state, and stop their subtasks."""
        stopped: list[tuple[LockedRequest, Stopped]] = []
        async with self._engine.begin() as connection:
            for locked in await requests.overdue(connection, _AT_ONCE):
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
            ids = sorted({subtask.request for subtask in late})
            applied = Applied(requests=await requests.lock(connection, ids))
            ended = [
                subtask
                for subtask in late
                if await subtasks.end(
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

    async def rescue_lost(self) -> None:
        """Take subtasks away from workers that fell silent."""
        async with self._engine.connect() as connection:
            lost = await leases.expired(connection, _AT_ONCE)
        if not lost:
            return
        # Without the broker nobody here can hear a heartbeat; raises then.
        async with answer_within(_BROKER_SECONDS):
            await self._bus.depth(topology.WORKERS.name)
        await _together_or_apart(lost, lambda row: row.request_id, self._take_away)

    async def _take_away(self, lost: Sequence[leases.Lost]) -> None:
        async with self._engine.begin() as connection:
            if not await _alone(connection):
                return
            ids = sorted({row.request_id for row in lost})
            applied = Applied(requests=await requests.lock(connection, ids))
            ended: dict[UUID, Result] = {}
            taken = [row for row in lost if await self._rescue(connection, row, applied, ended)]
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
        for model in self._view.registry().chat_models():
            load = self._view.loads.get(model.name)
            if load is None or load.queued == 0:
                continue
            # While the broker is away this would wait for it, and nothing else would be swept.
            async with answer_within(_BROKER_SECONDS):
                depth = await self._bus.depth(topology.subtasks(model.slug).name)
            if depth is not None and depth.ready > 0:
                continue
            async with self._engine.begin() as connection:
                again = await outbox.republish_forgotten(
                    connection, model.name, self._settings.forgotten_seconds
                )
            if again:
                log.warning("sweep.republished", model=model.name, count=len(again))
                self._dispatcher.nudge()

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
