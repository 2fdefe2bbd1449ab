"""Ending a request early: the terminal state first, then everybody is told to stop."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus import tracing
from bus.protocol import Bus
from db import judgements, requests, subtasks
from db.judgements import NewJudgement
from db.requests import LockedRequest
from master import logged
from master.announce import announce, broadcast, notify
from master.ending import Ending
from master.learning.verdicts import judgements_of_stored
from master.metrics.chats import (
    Cause,
    SubtaskEnding,
    count_cancel,
    count_ending,
    count_subtask_endings,
)
from master.metrics.learned import count_judgements, count_stop
from master.streams import Streams
from queue_schemas.codec import KeyRing
from queue_schemas.messages import Cancel
from queue_schemas.states import RequestState, SubtaskState

log = structlog.get_logger(__name__)

CANCELLED = Ending(
    RequestState.CANCELLED, error={"code": "cancelled", "message": "the client cancelled it"}
)
EXPIRED = Ending(
    RequestState.EXPIRED, error={"code": "deadline_exceeded", "message": "it took too long"}
)


@dataclass(frozen=True)
class Stopped:
    """What is to be told and counted of a request that was ended early."""

    subtasks: Mapping[UUID, str]
    """Those that do not go on, with the model of each."""
    judged: Sequence[NewJudgement]
    trace: str = ""
    """The id of the request's own trace; empty where it has none that is recorded."""


async def end_early(
    connection: AsyncConnection, locked: LockedRequest, how: Ending
) -> Stopped | None:
    """Write the terminal state; None if it had ended before."""
    error = to_json(how.error).decode()
    if not await requests.finish(connection, locked.id, how.state, error=error):
        return None
    judged = await _keep_judgements(connection, locked)
    trace = await _trace(connection, locked.id)
    return Stopped(await requests.drop_subtasks(connection, locked.id), judged, trace)


async def _trace(connection: AsyncConnection, request: UUID) -> str:
    if not tracing.is_on():
        return ""
    return tracing.trace_id_in(await requests.traceparent(connection, request)) or ""


async def _keep_judgements(
    connection: AsyncConnection, locked: LockedRequest
) -> Sequence[NewJudgement]:
    """Store what the steps of a request had said of each other by then."""
    plan = await judgements.judged_plan(connection, locked.id)
    if plan is None:
        return ()
    steps = (await subtasks.of_requests(connection, [locked.id]))[locked.id]
    said = judgements_of_stored(plan, {step.step: step.id for step in steps})
    await judgements.put(connection, locked.tenant, locked.id, said)
    return said


def count_stopped(locked: LockedRequest, how: Ending, stopped: Stopped) -> None:
    """After the commit, and before all that may fail."""
    count_judgements(stopped.judged)
    count_ending(locked.strategy, how.state, locked.seconds, stopped.trace)
    count_subtask_endings(
        SubtaskEnding(model, locked.strategy, SubtaskState.CANCELLED)
        for model in stopped.subtasks.values()
    )
    logged.ended(locked, how, stopped.trace)


async def tell_stopped(
    bus: Bus,
    streams: Streams,
    key: KeyRing | None,
    locked: LockedRequest,
    how: Ending,
    dropped: Collection[UUID],
) -> None:
    """After the commit: stop the workers, end the stream, tell the watchers."""
    if dropped:
        await broadcast(bus, Cancel(subtasks=tuple(dropped)), key)
    streams.end(locked.id, how)
    if locked.reply_to and locked.reply_to != streams.queue.name:
        await notify(bus, locked.reply_to, locked.id, key)
    await announce(bus, f"request.{how.state}", tenant=locked.tenant, request=locked.id)


async def cancel(
    engine: AsyncEngine,
    bus: Bus,
    streams: Streams,
    key: KeyRing | None,
    request: UUID,
    tenant: UUID,
    *,
    left: bool = False,
) -> bool:
    """Cancel a request of this tenant. False: there is none, or it had ended.

    `left`: nobody said so, the client has only left. Then a request that was taken over goes on:
    its clients reconnect, and one of them may be on another replica.
    """
    async with engine.begin() as connection:
        locked = (await requests.lock(connection, [request])).get(request)
        if locked is None or locked.tenant != tenant or (left and locked.adopted):
            return False
        stopped = await end_early(connection, locked, CANCELLED)
        if stopped is None:
            return False
        reason = "the client left" if left else "the client cancelled it"
        await judgements.put_stop(connection, request, reason)
    count_cancel(Cause.LEFT if left else Cause.CLIENT)
    count_stop()
    log.info("request.cancelled", request=str(request), reason=reason, trace=stopped.trace)
    count_stopped(locked, CANCELLED, stopped)
    await tell_stopped(bus, streams, key, locked, CANCELLED, stopped.subtasks)
    return True
