"""Frames of a `text/event-stream` body.

A stream that fails ends with `failure(...)`: the error frame has no `choices`,
because Open WebUI shows and stores an error only then, and the SDKs raise on its `error` key.
"""

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from master.api.errors import ApiError

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
"""So that no proxy holds tokens back."""

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


def frame(payload: JsonValue | Mapping[str, JsonValue], *, event: str = "", id: str = "") -> bytes:  # noqa: A002  SSE's word
    """One event. `event` names its type; `id` is what a client sends back as Last-Event-ID."""
    body = json.dumps(payload, separators=(",", ":"), allow_nan=False)
    return f"{_field('event', event)}{_field('id', id)}data: {body}\n\n".encode()


def comment(text: str) -> bytes:
    """A line that clients ignore and proxies count as life."""
    return f": {_line(text)}\n\n".encode()


def failure(error: ApiError) -> bytes:
    """The last frames of a stream that fails."""
    return frame(error.envelope()) + DONE


def status(description: str, *, done: bool = False, **extra: JsonValue) -> bytes:
    """A line of Open WebUI's progress display. The last one of an answer says `done`."""
    return open_webui_event("status", {"description": description, "done": done, **extra})


def source(
    name: str,
    texts: Sequence[str],
    *,
    identity: str,
    url: str | None = None,
    distances: Sequence[float] = (),
) -> bytes:
    """A source for Open WebUI; the n-th one sent is what `[n]` in the answer points to."""
    origin: dict[str, JsonValue] = {"name": name}
    if url:
        origin["url"] = url
    body: dict[str, JsonValue] = {
        "source": origin,
        "document": list(texts),
        "metadata": [{"source": identity, "name": name} for _ in texts],
    }
    if distances:
        body["distances"] = list(distances)
    return open_webui_event("source", body)


def open_webui_event(type: str, body: Mapping[str, JsonValue]) -> bytes:  # noqa: A002  Open WebUI's
    """An event object of Open WebUI, in a frame of its own. Strict clients must not get it."""
    return frame({"event": {"type": type, "data": dict(body)}})


def _field(name: str, value: str) -> str:
    return f"{name}: {_line(value)}\n" if value else ""


def _line(text: str) -> str:
    # A line break would end the field, and let its text forge another one.
    return text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
