"""The body of a stream: what happens to a request, as frames, for one client.

Whatever goes wrong below, the client gets one terminal event: a bug in here becomes an error
frame, and so does a client that takes nothing for too long.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bus import tracing
from master.api import errors, sse
from master.api.connection import cut
from master.api.errors import ApiError
from master.api.following import gone
from master.ending import Ending
from master.live import Interrupted, Item, Live, Reasoning, Text
from master.metrics import chats
from master.running import Running

log = structlog.get_logger(__name__)

_LOOKS = 4
"""At a client, in the time that it may take nothing."""


@dataclass(frozen=True)
class Dialect:
    """How one API says what happens."""

    begin: bytes
    """Said before anything is known."""
    show: Callable[[Item], Iterable[bytes]]
    """Each frame is asked for when the one before it is on its way. The ending is one frame."""
    fail: Callable[[ApiError], bytes]
    """The last frame of a stream that cannot go on."""
    parts: bool = False
    """It also shows parts of the answer before their turn."""


class EventStream(Response):
    """Follows a request to its end, and leaves it when the client has all or is gone.

    `skip` characters of the answer and `thought` of the reasoning are what the client has.
    """

    media_type = sse.MEDIA_TYPE

    def __init__(
        self,
        master: Running,
        live: Live,
        tenant: UUID,
        dialect: Dialect,
        *,
        skip: int = 0,
        thought: int = 0,
        headers: Mapping[str, str] | None = None,
        began: float | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**sse.HEADERS, **(headers or {})})
        self._master = master
        self._live = live
        self._tenant = tenant
        self._dialect = dialect
        self._have = skip, thought
        self._began = began
        """When the question came; its first text is measured from there."""
        self._taken = skip + min(thought, len(live.reasoning))
        """Characters that the client was sent, or has from before."""
        self._said_all = False
        self._stuck_since: float | None = None
        """When the frame was offered that the client has not taken yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        with tracing.span("stream", request=self._live.request) as self._span:
            await self._serve(scope, receive, send)
            self._tell()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        slow = False
        streaming = asyncio.create_task(self._stream(send))
        leaving = asyncio.create_task(gone(receive))
        try:
            slow = await self._is_too_slow(streaming, leaving)
            if slow:
                streaming.cancel()
                await asyncio.wait({streaming})
                await self._cut(scope, send, leaving)
            elif streaming.done():
                streaming.result()
        finally:
            streaming.cancel()
            leaving.cancel()
            self._leave(slow)

    def _tell(self) -> None:
        """How it ended, in its span."""
        ending = self._live.ending
        self._span.note(
            state=ending.state if ending else None,
            characters=self._taken,
            cut=None if self._said_all else True,
        )

    def _leave(self, slow: bool) -> None:
        if slow:
            # It did not say that it wants no answer. The answer can be read when it is back.
            self._master.streams.close(self._live)
        else:
            self._master.leave(self._live, self._tenant)

    async def _stream(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            await self._push(send, self._dialect.begin)
            skip, thought = self._have
            idle_seconds = self._master.settings.keep_alive_seconds
            parts = self._dialect.parts
            following = self._live.follow(idle_seconds, skip, thought, parts=parts)
            async with aclosing(following) as items:
                async for item in items:
                    self._count(item)
                    for frame in self._dialect.show(item):
                        await self._push(send, frame)
                    self._said_all = isinstance(item, Ending | Interrupted)
        except Exception as error:
            log.error("stream.failed", request=str(self._live.request), exc_info=error)
            if not self._said_all:
                await self._push(send, self._dialect.fail(errors.server_error()))
        self._said_all = True
        await self._push(send, b"", more=False)

    async def _push(self, send: Send, frame: bytes, *, more: bool = True) -> None:
        if not frame and more:
            return
        self._stuck_since = time.monotonic()
        await send({"type": "http.response.body", "body": frame, "more_body": more})
        self._stuck_since = None

    def _count(self, item: Item) -> None:
        if isinstance(item, Text | Reasoning):
            self._taken += len(item.text)
        if self._began is not None and isinstance(item, Text | Ending):
            if isinstance(item, Text):
                self._span.event("first_text")
                chats.note_first_text(self._live.plan.strategy, time.monotonic() - self._began)
            self._began = None

    async def _is_too_slow(self, *until: asyncio.Task[None]) -> bool:
        """Wait for the end of the stream or of its client; True if it holds on for too long."""
        patience = self._master.settings.slow_consumer_seconds
        while not any(task.done() for task in until):
            await asyncio.wait(
                until, timeout=patience / _LOOKS, return_when=asyncio.FIRST_COMPLETED
            )
            if self._waits_for_client(patience):
                return True
        return False

    def _waits_for_client(self, patience: float) -> bool:
        since = self._stuck_since
        if since is None or time.monotonic() - since < patience:
            return False
        # A client that sleeps for a while may go on, as long as little waits for it.
        much = self._master.settings.slow_consumer_characters
        return self._live.ending is not None or self._live.beyond(self._taken) > much

    async def _cut(self, scope: Scope, send: Send, leaving: asyncio.Task[None]) -> None:
        """Say why, as far as the socket takes it in time, and close it."""
        log.warning("stream.slow_consumer", request=str(self._live.request), taken=self._taken)
        chats.slow_consumers_total.inc()
        try:
            async with asyncio.timeout(self._master.settings.slow_consumer_seconds):
                if not self._said_all:
                    last = self._dialect.fail(errors.slow_consumer(self._live.request))
                    await send({"type": "http.response.body", "body": last})
                    return
        except TimeoutError:
            pass
        if cut(scope):
            await asyncio.wait({leaving})
