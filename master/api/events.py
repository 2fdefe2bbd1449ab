"""`/v1/requests/{id}/events`: one request as plain server-sent events, for any client.

The id of an event is the request and a position in its text (`r`: in what the model thought
before), so a browser that loses the connection goes on by itself where it was, on whichever replica
it reaches.
"""

import re
import time
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import Response

from db import requests
from db.requests import StoredRequest
from master.api import errors, outages, sse
from master.api.openapi import EVENT_STREAM, failures
from master.api.requests import identity_of
from master.api.state import ring, running
from master.api.stored import join
from master.api.streaming import Dialect, EventStream
from master.ending import Ending
from master.live import Grown, Idle, Interrupted, Item, Reasoning, Status, Text
from master.running import Running

router = APIRouter(tags=["Millrace"])

_EVENT_ID = re.compile(r"([0-9a-f]{32})-(r?)(\d{1,15}|end)")
_ALL = 10**15
_NO_MORE = "The client has the `end` event; a browser then stops asking"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `reasoning`, `text`, `status` and one `end`",
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
    place = _place(stored.id, last_event_id) if last_event_id else _Place(starting_after or 0)
    if place is None:
        return Response(status_code=204)
    live = await join(master, stored)
    words = _words(stored.id, place)
    return EventStream(master, live, key.tenant, words, skip=place.text, thought=place.thought)


@dataclass
class _Place:
    """How many characters a client has, of the answer and of the reasoning before it."""

    text: int
    thought: int = 0

    def __post_init__(self) -> None:
        if self.text:
            self.thought = _ALL


async def _find(master: Running, identity: UUID, tenant: UUID) -> StoredRequest:
    with outages.answered():
        async with master.engine.connect() as connection:
            stored = await requests.find(connection, identity, tenant)
    if stored is None:
        raise errors.not_found("this request")
    return stored


def _place(request: UUID, event_id: str) -> _Place | None:
    """What a client has; None if that is everything. Raises 400."""
    found = _EVENT_ID.fullmatch(event_id)
    if found is None or found[1] != request.hex or found[2] + found[3] == "rend":
        raise errors.invalid_value("this is no event of this request", "Last-Event-ID")
    if found[3] == "end":
        return None
    return _Place(0, int(found[3])) if found[2] else _Place(int(found[3]))


def _words(request: UUID, place: _Place) -> Dialect:
    def show(item: Item) -> tuple[bytes, ...]:
        return (_frame(request, item, place),)

    return Dialect(b"", show, _interruption)


def _frame(request: UUID, item: Item, place: _Place) -> bytes:
    match item:
        case Text(text):
            place.text += len(text)
            return sse.frame({"text": text}, event="text", id=f"{request.hex}-{place.text}")
        case Reasoning(text):
            place.thought += len(text)
            # Once the answer has begun, its place is the one to come back to.
            at = f"{request.hex}-{place.text}" if place.text else f"{request.hex}-r{place.thought}"
            return sse.frame({"text": text}, event="reasoning", id=at)
        case Status(description, done):
            return sse.frame({"description": description, "done": done}, event="status")
        case Ending():
            return sse.frame(_ending(item), event="end", id=f"{request.hex}-end")
        case Interrupted():
            return _interruption(errors.server_draining())
        case Idle() | Grown():
            return sse.PING


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
    return sse.frame(failure.envelope(), event="interrupted") + sse.DONE
