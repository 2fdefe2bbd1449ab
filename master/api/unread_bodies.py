"""Answers that are given before the whole body was read.

Without this, a client that is refused (401, 404, 413) may go on and send gigabytes, which the
server would read to keep the connection. To close it at once would reset it, and the reset may
overtake the answer; so the answer goes out first, then a moment of reading, then the end.
"""

import asyncio
import contextlib
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LINGER_SECONDS = 1.0
_CLOSE = (b"connection", b"close")


class UnreadBodies:
    """Closes the connection, in a way that the answer is heard, when the body was not read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        unread = True
        closing = False

        async def receive_noting_the_end() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        # Not a coroutine of its own: it is called for each chunk of a stream.
        def send_and_linger(message: Message) -> Awaitable[None]:
            nonlocal closing
            if message["type"] == "http.response.start" and unread:
                closing = True
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            if message["type"] != "http.response.body" or not closing or message.get("more_body"):
                return send(message)
            return _linger(message, receive, send)

        await self.app(scope, receive_noting_the_end, send_and_linger)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


async def _linger(last: Message, receive: Receive, send: Send) -> None:
    await send({**last, "more_body": True})
    await _read_on(receive)
    await send({"type": "http.response.body", "body": b""})


async def _read_on(receive: Receive) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass
