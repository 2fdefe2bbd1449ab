"""Live parts of pages: one rendering a second, shared by everyone who looks at the same.

A part is a block of HTML that htmx swaps in. It is rendered by whoever comes first, sent only when
it has changed, less often the more there is to render, and not at all while nobody looks.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from master.api import errors, sse
from master.api.errors import ApiError
from master.api.state import running
from master.console.viewer import SignIn, Viewer
from master.console.viewer import viewer as look_up
from master.outages import is_outage, said

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 10.0
"""Between two looks at whether the session still holds; also between two signs of life."""
_LOOK_SECONDS = 1.0
MOST_PARTS = 100
"""Of one tenant at this replica."""
REST = 10
"""The parts of a tenant take at most so many times less of this replica's time together."""
RENDER_SECONDS = 10.0
"""After which what a page shows counts as old."""
_ENDED = b"event: ended\ndata: sign in again\n\n"
_STALE = b"event: stale\ndata: this part cannot be brought up to date\n\n"

Render = Callable[[], Awaitable[str]]


@dataclass
class Part:
    """What is shown now to all who look at it."""

    render: Render
    every_seconds: float
    siblings: Callable[[], int] = lambda: 1
    """How many parts its tenant has, this one with them."""
    took_seconds: float = 0.0
    """The last rendering."""
    frame: bytes = b""
    version: int = 0
    viewers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    gone: bool = False
    """There is nothing to be shown any more: `frame` says why, and is the last one."""

    async def run(self) -> None:
        """Render until cancelled, or until there is nothing to render any more."""
        while not self.gone:
            self._show(await self._frame())
            await asyncio.sleep(self.pause_seconds)

    @property
    def pause_seconds(self) -> float:
        """Until the next rendering: longer where there is much to be rendered."""
        return max(self.every_seconds, REST * self.took_seconds * self.siblings())

    async def _frame(self) -> bytes:
        began, self.took_seconds = time.monotonic(), 0.0
        try:
            async with asyncio.timeout(RENDER_SECONDS):
                frame = as_event(await self.render())
            self.took_seconds = time.monotonic() - began  # and not the waiting in an outage
            return frame
        except ApiError as error:
            self.gone = is_final(error)
            if self.gone:
                return b"event: gone\n" + as_event(" ".join(error.message.split()))
            return self._stale(error, expected=True)
        except Exception as error:
            return self._stale(error, expected=isinstance(error, TimeoutError) or is_outage(error))

    def _stale(self, error: Exception, *, expected: bool) -> bytes:
        if self.frame != _STALE:  # once, and not every second of an outage
            log.warning("console.stale", error=said(error), exc_info=None if expected else error)
        return _STALE

    def _show(self, frame: bytes) -> None:
        if frame != self.frame:
            self.frame, self.version = frame, self.version + 1
            self.changed.set()
            self.changed = asyncio.Event()

    async def after(self, version: int, seconds: float) -> bool:
        """Wait so long for something newer; whether there is."""
        if self.version == version:
            changed = self.changed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), seconds)
        return self.version != version


@dataclass
class Parts:
    """The live parts of this replica that somebody looks at."""

    _parts: dict[tuple[UUID, Hashable], Part] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._parts)

    def has_room(self, tenant: UUID, key: Hashable) -> bool:
        """Whether this tenant may look at this as well."""
        return (tenant, key) in self._parts or self.of(tenant) < MOST_PARTS

    def of(self, tenant: UUID) -> int:
        """How many a tenant looks at."""
        return sum(whose == tenant for whose, _ in self._parts)

    @contextlib.asynccontextmanager
    async def looking(
        self, tenant: UUID, key: Hashable, render: Render, every_seconds: float
    ) -> AsyncGenerator[Part, None]:
        """The part of this tenant and key, kept up to date as long as anybody looks."""
        part = self._parts.get((tenant, key))
        if part is None:
            siblings = partial(self.of, tenant)
            part = self._parts[tenant, key] = Part(render, every_seconds, siblings)
            part.task = asyncio.create_task(part.run(), name="console live part")
        part.viewers += 1
        try:
            yield part
        finally:
            part.viewers -= 1
            if not part.viewers:
                del self._parts[tenant, key]
                if part.task is not None:
                    part.task.cancel()


def is_final(error: ApiError) -> bool:
    """Whether it would be the same if one looked again, such as that there is no such thing."""
    retried = error.status in {408, 409, 429} or error.status >= 500
    return not retried or error.headers.get("x-should-retry") == "false"


def as_event(html: str) -> bytes:
    """HTML as one event without a name: htmx swaps it in."""
    lines = html.splitlines() or [""]
    return "".join([*(f"data: {line}\n" for line in lines), "\n"]).encode()


def live(
    request: Request,
    viewer: Viewer,
    render: Render,
    *,
    key: Hashable,
    every_seconds: float = 1.0,
) -> Response:
    """A stream of what `render` makes, for an element with `hx-sse:connect`.

    `key` says what is looked at: viewers of one tenant with the same key share one rendering, so
    `render` must not depend on who of them looks. Raises `ApiError` 503 beyond `MOST_PARTS`.
    """
    parts: Parts = request.app.state.live_parts
    if not parts.has_room(viewer.tenant, key):
        raise errors.service_unavailable("too many live pages are open")
    frames = _frames(request, viewer, render, key, every_seconds)
    return StreamingResponse(frames, media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


async def _frames(
    request: Request, viewer: Viewer, render: Render, key: Hashable, every_seconds: float
) -> AsyncGenerator[bytes, None]:
    parts: Parts = request.app.state.live_parts
    master = running(request)
    version, checked = 0, time.monotonic()
    async with parts.looking(viewer.tenant, key, render, every_seconds) as part:
        while not master.draining:
            if await part.after(version, _LOOK_SECONDS):
                version = part.version
                yield part.frame
            if part.gone:
                return
            if time.monotonic() - checked > _CHECK_SECONDS:
                checked = time.monotonic()
                if not await _still_signed_in(request):
                    yield _ENDED
                    return
                yield sse.PING


async def _still_signed_in(request: Request) -> bool:
    try:
        await look_up(request)
    except SignIn:
        return False
    except ApiError:  # the database is away: nobody can say otherwise
        return True
    return True
