"""The open streams of one replica, fed by its own tokens queue.

Chunks may be lost: offsets show gaps, the worker sends again, and whatever is still missing comes
with the text of record. The terminal state always comes from the database.

Any replica can stream any request: it takes the request over and has the workers send to itself,
from the beginning. Nothing is generated again for that.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus, Delivery
from db import requests, subtasks
from db import shown as notes
from master import ending
from master.announce import broadcast, notify
from master.ending import Ending
from master.live import Live
from master.metrics.chats import RetryReason, count_retry, resends_total, takeovers_total
from master.metrics.loops import Loop
from master.onlookers import is_later
from master.outages import Failures
from master.planning.plan import Plan
from master.reassembly import PartStream, Verdict
from master.takeover import Snapshot, take_over
from queue_schemas import topology
from queue_schemas.codec import KeyRing, UnreadableMessage, decode
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
from queue_schemas.states import RequestState

log = structlog.get_logger(__name__)

_PREFETCH = 2000
_RESEND_PAUSE_SECONDS = 0.5
_WATCH_SECONDS = 2.0
"""A stream that is silent for so long is compared with the database: notices may be lost."""


class Streams:
    """Requests whose clients this replica serves, by id."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: Bus,
        replica: str,
        key_ring: KeyRing | None,
        nudge: Callable[[], None],
        absent: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`absent`: models without a worker, with words for it."""
        self._absent = absent
        self.queue = topology.tokens(replica)
        self._nudge = nudge
        self._engine = engine
        self._bus = bus
        self._key = key_ring
        self._live: dict[UUID, Live] = {}
        self._asked: dict[UUID, float] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._refreshing: set[UUID] = set()
        self._failures = Failures(Loop.STREAMS, log)

    def open(
        self, request: UUID, plan: Plan, steps: dict[UUID, str], *, background: bool = False
    ) -> Live:
        """Begin to stream a new request here; `close` it in the end."""
        live = self._live[request] = Live(request, plan, steps, background=background)
        live.note_absent(self._absent())
        return live

    async def join(self, request: UUID) -> Live | None:
        """Follow a stored request here, whoever streamed it before; `close` it in the end.

        None: there is no such request.
        """
        snapshot = await take_over(self._engine, request, self.queue.name)
        return self._follow(request, snapshot) if snapshot else None

    def close(self, live: Live) -> bool:
        """One client less; True if nobody follows the request here any more."""
        live.followers -= 1
        if live.followers > 0:
            return False
        if self._live.get(live.request) is live:
            del self._live[live.request]
        self._refreshing.discard(live.request)
        for subtask in live.subtasks:
            self._asked.pop(subtask, None)
        return True

    def has(self, request: UUID) -> bool:
        """Whether the request is streamed here."""
        return request in self._live

    def texts(self, request: UUID) -> dict[str, str]:
        """What is known here of the texts of a request, by step; nothing if it is not ours."""
        live = self._live.get(request)
        return {key: part.text for key, part in live.parts.items()} if live else {}

    def interrupt(self) -> None:
        """End all streams here without ending their requests."""
        for live in self._live.values():
            live.interrupt()

    def __len__(self) -> int:
        return len(self._live)

    def shown(self, results: Sequence[Completed | Failed]) -> dict[UUID, str]:
        """What clients here have seen of these subtasks: no result may contradict it."""
        found: dict[UUID, str] = {}
        for result in results:
            live = self._live.get(result.request)
            step = live.subtasks.get(result.subtask) if live else None
            if live and step and (part := live.parts[step]).shown:
                found[result.subtask] = part.text[: part.shown]
        return found

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
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                self._note_absent()
                await self._watch()
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
        if isinstance(message, Started):
            if live:
                live.note_begun(message.subtask)
            if is_later(message):
                self._start(self._note_shown(live, message))
            return
        if live is None:
            return
        if isinstance(message, Notice):
            self._start(self._refresh(live))
        else:
            if message.subtask not in live.subtasks:
                self._learn_plan(live)
                return
            verdict = live.take(message)
            if verdict is Verdict.GAP:
                self._ask_again(live, message)
            elif verdict is Verdict.DIVERGED:
                self._start(self._continue(live, message))

    async def _note_shown(self, live: Live | None, later: Started) -> None:
        """Another execution says a text again: whoever collects it must know what was shown."""
        shown = live.switch(later) if live else ""
        if shown is not None:
            async with self._engine.begin() as connection:
                await notes.note(connection, later, shown, self.queue.name)

    def _learn_plan(self, live: Live) -> None:
        """The plan has grown; the text that comes until we know how is asked for again."""
        if live.request not in self._refreshing:
            self._refreshing.add(live.request)
            self._start(self._refresh(live))

    def _follow(self, request: UUID, snapshot: Snapshot) -> Live:
        """The stream of a request that this replica has taken over."""
        live = self._live.get(request)
        fresh = live is None
        if live is None:
            background = snapshot.stored.background
            live = Live(request, snapshot.plan, snapshot.steps, background=background)
            live.expect(snapshot.rows)
        else:
            live.followers += 1
        for subtask in snapshot.running:
            live.note_begun(subtask)
        if snapshot.has_texts:
            live.refresh(snapshot.plan, snapshot.rows)
        former = snapshot.stored.reply_to
        if snapshot.ending is not None:
            live.end(snapshot.ending)
            return live
        if former and former != self.queue.name:
            takeovers_total.inc()
        self._live[request] = live
        if fresh or former != self.queue.name:
            self._start(self._redirect(live, snapshot.running))
        if former and former != self.queue.name:
            self._start(notify(self._bus, former, request, self._key))
        return live

    async def _redirect(self, live: Live, running: Iterable[UUID]) -> None:
        """Have the workers send here what is not known here."""
        for subtask in running:
            await broadcast(self._bus, self._resend(live, subtask), self._key)

    def _note_absent(self) -> None:
        absent = self._absent()
        for live in self._live.values():
            live.note_absent(absent)

    async def _watch(self) -> None:
        """Heal the streams in which nothing happens: what was to be told may have been lost."""
        quiet = [live for live in self._live.values() if live.quiet and live.ending is None]
        for live in self._live.values():
            live.quiet = True
        try:
            if quiet:
                await self._compare(quiet)
                self._failures.over()
        except Exception as error:
            self._failures.met(error)

    async def _compare(self, quiet: Sequence[Live]) -> None:
        async with self._engine.connect() as connection:
            found = await requests.standings(connection, [live.request for live in quiet])
        for live in quiet:
            standing = found.get(live.request)
            if standing is None or standing.ended or standing.steps != live.known:
                self._start(self._refresh(live))
            elif standing.reply_to != self.queue.name:
                # Clients on two replicas: each takes the tokens back when it hears none.
                self._start(self._take_back(live))
            elif standing.adopted:
                self._start(self._redirect(live, standing.running))

    async def _take_back(self, live: Live) -> None:
        snapshot = await take_over(self._engine, live.request, self.queue.name)
        if snapshot is not None and self._live.get(live.request) is live:
            self._follow(live.request, snapshot)
            live.followers -= 1  # nobody came

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:
            # The watch looks again.
            self._failures.met(error)
        else:
            self._failures.over()

    def _ask_again(self, live: Live, chunk: TokenChunk) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._asked.get(chunk.subtask, 0.0) < _RESEND_PAUSE_SECONDS:
            return
        self._asked[chunk.subtask] = now
        resends_total.inc()
        self._start(broadcast(self._bus, self._resend(live, chunk.subtask), self._key))

    def _resend(self, live: Live, subtask: UUID) -> Resend:
        """The order to send here what is not known here."""
        step = live.subtasks.get(subtask)
        part = live.parts[step] if step else PartStream()
        return Resend(
            subtask=subtask,
            offset=len(part.text),
            reasoning=len(part.reasoning),
            to=self.queue.name,
        )

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
                delivery=chunk.delivery,
                shown=shown,
            )
        if moved:
            count_retry(_model(live, chunk), RetryReason.DIVERGED)
            log.info(
                "stream.continued",
                request=str(live.request),
                subtask=str(chunk.subtask),
                attempt=chunk.attempt,
                shown=len(shown),
            )
            self._nudge()
            stop = Cancel(subtasks=(chunk.subtask,), execution=chunk.execution)
            await broadcast(self._bus, stop, self._key)

    async def _refresh(self, live: Live) -> None:
        async with self._engine.connect() as connection:
            # One look: a plan and rows of different moments would contradict each other.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            stored = (await requests.load(connection, [live.request])).get(live.request)
            rows = await subtasks.details(connection, live.request)
            how = await ending.load(connection, live.request)
        self._refreshing.discard(live.request)
        if stored is not None and (how is None or how.state is RequestState.COMPLETED):
            live.refresh(Plan.model_validate(stored.plan), rows)
        if how is not None:
            live.end(how)


def _model(live: Live, chunk: TokenChunk) -> str:
    """The model that the plan has for a chunk's step."""
    key = live.subtasks.get(chunk.subtask)
    return next((step.model for step in live.plan.steps if step.key == key), "")
