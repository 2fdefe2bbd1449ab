"""What the routes share whose client waits for the ending of a request."""

import asyncio

from starlette.requests import Request
from starlette.types import Receive

from bus import tracing
from master.api import errors
from master.api.errors import ApiError
from master.ending import Ending
from master.live import Live
from master.running import Running
from queue_schemas.states import RequestState

_STATUS_OF_STATE = {RequestState.CANCELLED: 409, RequestState.EXPIRED: 504}
_STATUS_OF_CODE = {
    "context_length_exceeded": 400,
    "bad_request": 400,
    "invalid_request": 400,
    "first_token_timeout": 504,
    "inter_token_timeout": 504,
    "timeout": 504,
}


async def wait(master: Running, request: Request, live: Live, headers: dict[str, str]) -> Ending:
    """The answer of a request whose client waits for it as a whole.

    Raises `ApiError`, with these headers, when there is none.
    """
    with tracing.span("wait", request=live.request) as span:
        ending = await _unless_gone(request, live)
        span.note(state=ending.state if ending else None)
    if ending is None and master.draining:
        raise errors.server_draining()
    if ending is None:
        raise ApiError(499, "client_disconnected", "the client left")
    if ending.state is not RequestState.COMPLETED:
        error = error_of(ending)
        error.headers |= headers
        raise error
    return ending


def error_of(end: Ending) -> ApiError:
    """The error a client gets for a request that has no answer."""
    code = str((end.error or {}).get("code", "failed"))
    message = str((end.error or {}).get("message", "the request failed"))
    status = _STATUS_OF_STATE.get(end.state) or _STATUS_OF_CODE.get(code, 502)
    return ApiError(status, code, message, headers={"x-should-retry": "false"})


async def _unless_gone(request: Request, live: Live) -> Ending | None:
    """The ending, or None when the client disconnects before it."""
    waiting = asyncio.create_task(live.ended())
    leaving = asyncio.create_task(gone(request.receive))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
        leaving.cancel()


async def gone(receive: Receive) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
