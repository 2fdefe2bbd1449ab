"""Ending a request early: the terminal state first, then everybody is told to stop."""

from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.protocol import Bus
from db import judgements, requests, subtasks
from db.requests import LockedRequest
from master import metrics
from master.announce import announce, broadcast, notify
from master.ending import Ending
from master.learning.verdicts import judgements_of_stored
from master.streams import Streams
from queue_schemas.codec import KeyRing
from queue_schemas.messages import Cancel
from queue_schemas.states import RequestState

CANCELLED = Ending(
    RequestState.CANCELLED, error={"code": "cancelled", "message": "the client cancelled it"}
)
EXPIRED = Ending(
    RequestState.EXPIRED, error={"code": "deadline_exceeded", "message": "it took too long"}
)


async def end_early(
    connection: AsyncConnection, locked: LockedRequest, how: Ending
) -> list[UUID] | None:
    """Write the terminal state; returns the subtasks to stop, None if it had ended before."""
    error = to_json(how.error).decode()
    if not await requests.finish(connection, locked.id, how.state, error=error):
        return None
    await _keep_judgements(connection, locked)
    return await requests.drop_subtasks(connection, locked.id)


async def _keep_judgements(connection: AsyncConnection, locked: LockedRequest) -> None:
    """Store what the steps of a request had said of each other by then."""
    plan = await judgements.judged_plan(connection, locked.id)
    if plan is None:
        return
    steps = (await subtasks.of_requests(connection, [locked.id]))[locked.id]
    said = judgements_of_stored(plan, {step.step: step.id for step in steps})
    await judgements.put(connection, locked.tenant, locked.id, said)


async def tell_stopped(
    bus: Bus,
    streams: Streams,
    key: KeyRing | None,
    locked: LockedRequest,
    how: Ending,
    dropped: list[UUID],
) -> None:
    """After the commit: stop the workers, end the stream, tell the watchers."""
    if dropped:
        await broadcast(bus, Cancel(subtasks=tuple(dropped)), key)
    streams.end(locked.id, how)
    if locked.reply_to and locked.reply_to != streams.queue.name:
        await notify(bus, locked.reply_to, locked.id, key)
    metrics.endings_total.labels(how.state).inc()
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
        dropped = await end_early(connection, locked, CANCELLED)
        if dropped is None:
            return False
        reason = "the client left" if left else "the client cancelled it"
        await judgements.put_stop(connection, request, reason)
    await tell_stopped(bus, streams, key, locked, CANCELLED, dropped)
    return True
