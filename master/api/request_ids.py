"""A request id on every answer and in every log line.

A pure ASGI middleware: it only looks at the start of the response, so streams pass through
untouched and a client's disconnect still reaches the route.
"""

import re
import secrets
from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "x-request-id"

_RAW_HEADER = REQUEST_ID_HEADER.encode()
_ACCEPTED = re.compile(rb"[A-Za-z0-9_-]{1,64}")


def request_id(scope: Scope) -> str:
    """The id of the request that a scope belongs to."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        state["request_id"] = _choose(scope)
    chosen: str = state["request_id"]
    return chosen


def _choose(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == _RAW_HEADER]
    # Anything else could carry line breaks or kilobytes into logs and messages.
    if len(given) == 1 and _ACCEPTED.fullmatch(given[0]):
        return bytes(given[0]).decode("ascii")
    return secrets.token_hex(16)


class RequestIds:
    """Answers with `x-request-id`, and with `answer_bug` when the app below raises."""

    def __init__(self, app: ASGIApp, answer_bug: Callable[[Request, Exception], Response]) -> None:
        self.app = app
        self.answer_bug = answer_bug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity = request_id(scope)
        header = (_RAW_HEADER, identity.encode())
        started = False

        # Not a coroutine of its own: it is called for each chunk of a stream.
        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                others = [pair for pair in message.get("headers", ()) if pair[0] != _RAW_HEADER]
                message = {**message, "headers": [*others, header]}
            return send(message)

        bound = structlog.contextvars.bind_contextvars(request_id=identity)
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if started:  # too late for an answer: the server has to cut the connection
                raise
            answer = self.answer_bug(Request(scope), error)
            await answer(scope, receive, send_with_id)
        finally:
            structlog.contextvars.reset_contextvars(**bound)
