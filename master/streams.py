"""The open streams of one replica, fed by its own tokens queue.

Chunks may be lost: offsets show gaps, the worker sends again, and whatever is still missing comes
with the text of record. The terminal state always comes from the database.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus, Delivery
from db import requests, subtasks
from master import ending
from master.announce import broadcast
from master.ending import Ending
from master.live import Live
from master.planning.plan import Plan
from master.reassembly import Verdict
from queue_schemas import topology
from queue_schemas.codec import UnreadableMessage, decode
from queue_schemas.messages import (
    STREAM,
    Cancel,
    Completed,
    Failed,
    Notice,
    Resend,
    Started,
    TokenChunk,
)

log = structlog.get_logger(__name__)

_PREFETCH = 2000
_RESEND_PAUSE_SECONDS = 0.5


class Streams:
    """Requests whose clients this replica serves, by id."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: Bus,
        replica: str,
        signing_key: bytes | None,
        nudge: Callable[[], None],
    ) -> None:
        self.queue = topology.tokens(replica)
        self._nudge = nudge
        self._engine = engine
        self._bus = bus
        self._key = signing_key
        self._live: dict[UUID, Live] = {}
        self._asked: dict[UUID, float] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._diverged: set[UUID] = set()

    def open(self, request: UUID, plan: Plan, steps: dict[UUID, str]) -> Live:
        """Begin to stream a request here."""
        live = self._live[request] = Live(request, plan, steps)
        return live

    def close(self, live: Live) -> None:
        """Its client is gone or has everything."""
        self._live.pop(live.request, None)
        for subtask in live.subtasks:
            self._asked.pop(subtask, None)

    def has(self, request: UUID) -> bool:
        """Whether the request is streamed here."""
        return request in self._live

    def interrupt(self) -> None:
        """End all streams here without ending their requests."""
        for live in self._live.values():
            live.interrupt()

    def __len__(self) -> int:
        return len(self._live)

    def take_results(self, results: Sequence[Completed | Failed]) -> None:
        """Results that this very replica has stored."""
        for result in results:
            live = self._live.get(result.request)
            if live and isinstance(result, Completed):
                live.finish_part(result)

    def end(self, request: UUID, how: Ending) -> None:
        """A request that ended, on whichever replica; nothing happens if it is not ours."""
        if live := self._live.get(request):
            live.end(how)

    def refresh_soon(self, request: UUID) -> None:
        """Something changed in the database that the stream does not know."""
        if live := self._live.get(request):
            self._start(self._refresh(live))

    async def run(self) -> None:
        """Consume this replica's tokens queue until cancelled."""
        consumer = await self._bus.consume(self.queue, self._receive, prefetch=_PREFETCH)
        try:
            await asyncio.Event().wait()
        finally:
            await consumer.cancel()

    async def _receive(self, delivery: Delivery) -> None:
        try:
            message = decode(STREAM, delivery.body, delivery.headers, self._key)
        except UnreadableMessage as error:
            log.warning("streams.unreadable", reason=str(error))
        else:
            self._take(message)
        await delivery.ack()

    def _take(self, message: Started | TokenChunk | Notice) -> None:
        live = self._live.get(message.request)
        if live is None:
            return
        if isinstance(message, Notice):
            self._start(self._refresh(live))
        elif isinstance(message, TokenChunk):
            verdict = live.take(message)
            if verdict is Verdict.GAP:
                self._ask_again(live, message)
            elif verdict is Verdict.DIVERGED and message.execution not in self._diverged:
                self._diverged.add(message.execution)
                self._start(self._continue(live, message))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _ask_again(self, live: Live, chunk: TokenChunk) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._asked.get(chunk.subtask, 0.0) < _RESEND_PAUSE_SECONDS:
            return
        self._asked[chunk.subtask] = now
        known = len(live.parts[live.subtasks[chunk.subtask]].text)
        ask = Resend(subtask=chunk.subtask, offset=known, to=self.queue.name)
        self._start(broadcast(self._bus, ask, self._key))

    async def _continue(self, live: Live, chunk: TokenChunk) -> None:
        """A regenerated text contradicts what was shown: have it continued from there instead."""
        part = live.parts[live.subtasks[chunk.subtask]]
        shown = part.text[: part.shown]
        async with self._engine.begin() as connection:
            await requests.lock(connection, [live.request])
            moved = await subtasks.again(
                connection,
                chunk.subtask,
                chunk.attempt,
                execution=chunk.execution,
                shown=shown,
            )
        self._diverged.discard(chunk.execution)
        if moved:
            log.info("stream.continued", subtask=str(chunk.subtask), shown=len(shown))
            self._nudge()
            stop = Cancel(subtasks=(chunk.subtask,), execution=chunk.execution)
            await broadcast(self._bus, stop, self._key)

    async def _refresh(self, live: Live) -> None:
        async with self._engine.connect() as connection:
            stored = (await requests.load(connection, [live.request])).get(live.request)
            rows = await subtasks.details(connection, live.request)
            how = await ending.load(connection, live.request)
        if stored is not None:
            live.refresh(Plan.model_validate(stored.plan), rows)
        if how is not None:
            live.end(how)
