"""Telling others: control messages to workers, notices to replicas, events to watchers."""

from datetime import UTC, datetime
from uuid import UUID

from pydantic import JsonValue

from bus.protocol import Bus
from queue_schemas.codec import KeyRing, encode
from queue_schemas.messages import Cancel, Drain, Event, Notice, Resend


async def broadcast(bus: Bus, message: Cancel | Resend | Drain, key: KeyRing | None) -> None:
    """Send a control message to every worker."""
    body, headers = encode(message, key)
    await bus.broadcast(body, headers)


async def notify(bus: Bus, queue: str, request: UUID, key: KeyRing | None) -> None:
    """Tell the replica that owns this tokens queue to look at a request again."""
    body, headers = encode(Notice(request=request), key)
    await bus.stream(queue, body, headers)


async def announce(
    bus: Bus,
    happened: str,
    *,
    tenant: UUID | None = None,
    request: UUID | None = None,
    detail: dict[str, JsonValue] | None = None,
) -> None:
    """Tell the watchers of `events` what happened, for example `request.completed`."""
    event = Event(
        type=happened,
        tenant=tenant,
        request=request,
        at=datetime.now(UTC).isoformat(),
        detail=detail or {},
    )
    await bus.emit(happened, event.model_dump_json().encode())
