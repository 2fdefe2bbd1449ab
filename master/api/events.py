"""`/v1/requests/{id}/events`: one request as plain server-sent events, for any client.

The id of an event is the request and a position in its text, so a browser that loses the
connection goes on by itself where it was, on whichever replica it reaches.
"""

import re
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Query
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from db import requests
from db.requests import StoredRequest
from master.api import errors, outages, sse
from master.api.documents import EVENT_STREAM, failures
from master.api.requests import identity_of
from master.api.state import ring, running
from master.api.stored import join
from master.ending import Ending
from master.live import Idle, Interrupted, Item, Live, Status, Text
from master.running import Running

log = structlog.get_logger(__name__)

router = APIRouter(tags=["Millrace"])

_EVENT_ID = re.compile(r"([0-9a-f]{32})-(\d{1,15}|end)")
_NO_MORE = "The client has the `end` event; a browser then stops asking"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `text`, `status` and one `end`",
        "content": EVENT_STREAM,
    },
    204: {"description": _NO_MORE},
    **failures(400, 401, 404, 410, 503),
}


@router.get("/v1/requests/{request_id}/events", response_model=None, responses=_RESPONSES)
async def follow_request(
    request_id: str,
    request: Request,
    starting_after: Annotated[
        int | None, Query(ge=0, le=10**15, description="Characters that the client has.")
    ] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Follow a request of yours, from the beginning or after an event that you have."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    stored = await _find(master, identity_of(request_id), key.tenant)
    position = _position(stored.id, last_event_id) if last_event_id else starting_after or 0
    if position is None:
        return Response(status_code=204)
    live = await join(master, stored)
    frames = _stream(master, live, position, key.tenant)
    return StreamingResponse(frames, media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


async def _find(master: Running, identity: UUID, tenant: UUID) -> StoredRequest:
    with outages.answered():
        async with master.engine.connect() as connection:
            stored = await requests.find(connection, identity, tenant)
    if stored is None:
        raise errors.not_found("this request")
    return stored


def _position(request: UUID, event_id: str) -> int | None:
    """How much of the text a client has; None if it has everything. Raises 400."""
    found = _EVENT_ID.fullmatch(event_id)
    if found is None or found[1] != request.hex:
        raise errors.invalid_value("this is no event of this request", "Last-Event-ID")
    return None if found[2] == "end" else int(found[2])


async def _stream(
    master: Running, live: Live, position: int, tenant: UUID
) -> AsyncGenerator[bytes, None]:
    try:
        async for item in live.follow(master.settings.keep_alive_seconds, position):
            if isinstance(item, Text):
                position += len(item.text)
            if frame := _frame(live.request, item, position):
                yield frame
    except Exception as error:
        log.error("stream.failed", request=str(live.request), exc_info=error)
        yield _interruption(errors.server_error())
    finally:
        master.leave(live, tenant)


def _frame(request: UUID, item: Item, position: int) -> bytes:
    match item:
        case Text(text):
            return sse.frame({"text": text}, event="text", id=f"{request.hex}-{position}")
        case Status(description, done):
            return sse.frame({"description": description, "done": done}, event="status")
        case Ending():
            return sse.frame(_ending(item), event="end", id=f"{request.hex}-end")
        case Interrupted():
            return _interruption(errors.server_draining())
        case Idle():
            return sse.PING
        case _:
            return b""


def _ending(ending: Ending) -> dict[str, JsonValue]:
    return {
        "state": ending.state.value,
        "finish_reason": ending.finish_reason,
        "error": dict(ending.error) if ending.error else None,
        "prompt_tokens": ending.prompt_tokens,
        "completion_tokens": ending.completion_tokens,
    }


def _interruption(failure: errors.ApiError) -> bytes:
    """Not the end of the request: whoever connects again goes on."""
    return sse.frame(failure.envelope(), event="interrupted")
