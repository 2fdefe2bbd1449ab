"""The loop of a worker: takes subtasks of one model, executes them, reports, acknowledges."""

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine
from importlib.metadata import version
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from bus import tracing
from bus.protocol import (
    Bus,
    BusUnavailable,
    Consumer,
    Delivery,
    PublishUnknown,
    QueueFull,
    Unroutable,
    quarantine,
)
from queue_schemas import topology
from queue_schemas.codec import UnreadableMessage, decode, encode
from queue_schemas.messages import (
    CANCELLED,
    CONTROL,
    SUBTASK,
    Cancel,
    Completed,
    Drain,
    ErrorKind,
    Failed,
    Heartbeat,
    Message,
    Resend,
    RunningSubtask,
    Started,
    SubtaskRequest,
    TokenChunk,
)
from queue_schemas.registry import Model
from worker import logged, spans
from worker.execute import Execution, begin, execute
from worker.providers.diagnosis import SICKNESS
from worker.providers.protocol import Provider, ProviderError
from worker.settings import WorkerSettings
from worker.standing import Obstacle, Standing
from worker.tombstones import Tombstones

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

RELEASE = version("millrace")
CONTROL_PREFETCH = 100
LONGEST_PUBLISH_PAUSE_SECONDS = 5.0
MOST_DELIVERIES = 3
"""What was handed out so often without a result is taken for the cause of it."""


async def run(
    bus: Bus,
    model: Model,
    settings: WorkerSettings,
    provider: Provider,
    stop: asyncio.Event,
    standing: Standing | None = None,
) -> None:
    """Serve the model until `stop` is set or Drain comes, then finish what runs and return.

    `standing` is kept up to date for whoever else reads it.

    What is not finished within `drain_seconds` is left unacknowledged: the caller closes the bus
    (and the provider), and the broker hands it to somebody else.
    """
    standing = standing or Standing(settings.name, model)
    await Worker(bus, model, settings, provider, standing).run(stop)


class Worker:
    """What one worker process knows: what runs, what was cancelled, how the engine is."""

    def __init__(
        self,
        bus: Bus,
        model: Model,
        settings: WorkerSettings,
        provider: Provider,
        standing: Standing,
    ) -> None:
        self._bus = bus
        self._model = model
        self._settings = settings
        self._provider = provider
        self._standing = standing
        self._key = settings.key_ring
        self._running: dict[UUID, Execution] = {}
        self._tombstones = Tombstones(settings.cancelled_seconds)
        self._tasks: set[asyncio.Task[None]] = set()
        """Deliveries in hand, to be abandoned when draining takes too long."""
        self._consuming = False
        self._drain = asyncio.Event()
        self._sick = asyncio.Event()
        self._sick_count = 0
        self._log = _log.bind(worker=settings.name, model=model.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop."""
        ending = asyncio.create_task(_first_of(stop, self._drain))
        ending.add_done_callback(lambda _: self._leave())
        beating: asyncio.Task[None] | None = None
        control: Consumer | None = None
        try:
            while await self._ready(ending):
                if control is None:
                    control = await self._unless(ending, self._appear())
                    if control is None:
                        break
                    beating = self._standing.heart = asyncio.create_task(self._beat_forever())
                await self._consume(ending)
            await self._finish()
        finally:
            for task in filter(None, (ending, beating)):
                task.cancel()
        if control is not None:
            await self._beat(stopped=True)
            await control.cancel()
        self._log.info("worker.stopped", unfinished=len(self._running))

    def _leave(self) -> None:
        self._standing.waits_for(Obstacle.DRAINING, "it finishes what it has, and takes no more")

    async def _appear(self) -> Consumer:
        """Declare what a worker needs, since it may be the first process here, and listen."""
        needed = (*topology.SHARED, topology.subtasks(self._model.slug))
        await self._connected(lambda: self._bus.declare(needed))
        queue = topology.control(self._settings.name)
        return await self._connected(
            lambda: self._bus.consume(queue, self.on_control, prefetch=CONTROL_PREFETCH)
        )

    async def _ready(self, ending: asyncio.Task[None]) -> bool:
        """Wait until the engine is ready. False: the worker is to end."""
        pause = 0.5
        self._standing.waits_for(Obstacle.ENGINE, "it is asked for the model, which may take time")
        while not ending.done():
            try:
                await self._unless(ending, self._provider.check())
            except ProviderError as error:
                pause = min(2 * pause, self._settings.check_seconds)
                self._standing.waits_for(Obstacle.ENGINE, str(error))
                self._log.warning(
                    "worker.engine_not_ready", code=error.code, reason=error.message, again_in=pause
                )
                await asyncio.wait({ending}, timeout=pause * random.uniform(0.5, 1.0))
            else:
                self._standing.waits_for(Obstacle.BROKER, "it asks the broker for its queue")
                break
        return not ending.done()

    async def _unless(
        self, ending: asyncio.Task[None], work: Coroutine[None, None, _T]
    ) -> _T | None:
        """Do some work; None when it was given up because the worker is to end."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()

    async def _consume(self, ending: asyncio.Task[None]) -> None:
        """Take subtasks until the worker is to end or its engine is sick."""
        self._sick.clear()
        self._sick_count = 0
        self._consuming = True
        queue = topology.subtasks(self._model.slug)
        consuming = self._connected(
            lambda: self._bus.consume(queue, self.on_subtask, prefetch=self._model.slots)
        )
        consumer = await self._unless(ending, consuming)
        if consumer is None:
            return
        self._standing.consumes(consumer)
        self._log.info("worker.ready", queue=queue.name, slots=self._model.slots)
        sick = asyncio.create_task(self._sick.wait())
        try:
            await asyncio.wait({ending, sick}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sick.cancel()
            self._consuming = False
            await consumer.cancel()

    async def _connected(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Try until there is a connection to the broker; says why not, but not every second."""
        reason = ""
        while True:
            try:
                return await attempt()
            except BusUnavailable as error:
                self._standing.waits_for(Obstacle.BROKER, str(error))
                if str(error) != reason:
                    reason = str(error)
                    self._log.warning("worker.no_broker", reason=reason)
                await asyncio.sleep(1.0)

    async def _finish(self) -> None:
        """Let running subtasks end; after the drain time, let go of them without a word."""
        if not self._tasks:
            return
        await self._beat()
        self._log.info("worker.draining", running=len(self._tasks))
        _, late = await asyncio.wait(self._tasks, timeout=self._settings.drain_seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def on_subtask(self, delivery: Delivery) -> None:
        """Execute one delivery, report its outcome, acknowledge."""
        if task := asyncio.current_task():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            subtask = decode(SUBTASK, delivery.body, delivery.headers, self._key)
        except UnreadableMessage as error:
            self._log.warning("worker.unreadable", queue=delivery.queue, reason=str(error))
            await quarantine(self._bus, delivery, str(error))
            return
        worker, prompts = self._settings.name, self._settings.log_prompts
        with spans.execute(subtask, delivery, worker) as span, logged.delivery(subtask, worker):
            self._standing.redeliveries += delivery.delivery_count > 0
            outcome: Completed | Failed | None = self._refusal(subtask, delivery.delivery_count)
            if outcome is not None:
                self._standing.count(outcome)
                await self._report(outcome)
            else:
                outcome = await self._execute(subtask, delivery.delivery_count)
            spans.tell(span, outcome)
            logged.ended(subtask, outcome, prompts=prompts)
        await delivery.ack()

    def _refusal(self, subtask: SubtaskRequest, delivery_count: int) -> Failed | None:
        """Why this subtask is not even begun."""
        if subtask.subtask in self._tombstones:
            kind, code, message = ErrorKind.PERMANENT, CANCELLED, "cancelled before it began"
        elif subtask.model != self._model.name:
            kind, code = ErrorKind.TRANSIENT, "wrong_model"
            message = f"it is for {subtask.model!r}, and this worker serves {self._model.name!r}"
        elif delivery_count >= MOST_DELIVERIES:
            kind, code = ErrorKind.POISON, "worker_lost"
            message = f"{delivery_count} workers were lost while they had it"
        else:
            return None
        return Failed(
            request=subtask.request,
            subtask=subtask.subtask,
            attempt=subtask.attempt,
            execution=uuid4(),
            delivery=delivery_count,
            worker=self._settings.name,
            kind=kind,
            code=code,
            message=message,
        )

    async def _execute(self, subtask: SubtaskRequest, delivery_count: int) -> Completed | Failed:
        execution = begin(
            subtask,
            delivery_count,
            self._settings.name,
            self._stream,
            self._settings.coalesce_seconds,
        )
        prompts = self._settings.log_prompts
        logged.started(subtask, execution.id, delivery_count, prompts=prompts)
        execution.note_gap = self._standing.pace.inter_token.note
        self._running[execution.id] = execution
        self._standing.began(execution.id)
        try:
            await self._tell(execution.started)
            outcome = await execute(execution, self._provider, self._model)
            self._standing.count(outcome)
            self._note_health(outcome)
            await execution.stream.flush()
            await self._report(outcome)
            return outcome
        finally:
            execution.stream.close()
            del self._running[execution.id]
            self._standing.ended(execution.id)

    async def _tell(self, message: Started | Heartbeat) -> None:
        """Send a note whose loss the next heartbeat heals."""
        body, headers = encode(message, self._key)
        await self._bus.stream(topology.WORKERS.name, body, tracing.inject(headers))

    async def _stream(self, queue: str, message: Started | TokenChunk) -> None:
        await self._bus.stream(queue, *encode(message, self._key))

    async def _report(self, outcome: Completed | Failed) -> None:
        """Publish a result until the broker has confirmed it."""
        with spans.report(outcome):
            await self._publish(outcome)

    async def _publish(self, outcome: Completed | Failed) -> None:
        body, headers = encode(outcome, self._key)
        tracing.inject(headers)
        pause = 0.05
        while True:
            try:
                await self._bus.publish(
                    topology.RESULTS.name, body, headers, correlation_id=str(outcome.request)
                )
            except (QueueFull, PublishUnknown, BusUnavailable, Unroutable) as error:
                pause = min(2 * pause, LONGEST_PUBLISH_PAUSE_SECONDS)
                self._log.warning(
                    "worker.result_not_stored", subtask=str(outcome.subtask), reason=str(error)
                )
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            else:
                return

    def _note_health(self, outcome: Completed | Failed) -> None:
        """A worker whose engine is down would fail the whole queue in seconds: stop in time."""
        if isinstance(outcome, Completed):
            self._sick_count = 0
        elif outcome.code in SICKNESS:
            self._sick_count += 1
            if self._sick_count >= self._settings.sick_after and self._consuming:
                self._log.warning("worker.engine_sick", code=outcome.code)
                self._sick.set()

    async def on_control(self, delivery: Delivery) -> None:
        """Carry out one order of a master."""
        try:
            order = decode(CONTROL, delivery.body, delivery.headers, self._key)
        except UnreadableMessage as error:
            self._log.warning("worker.unreadable", queue=delivery.queue, reason=str(error))
            await quarantine(self._bus, delivery, str(error))
            return
        self._obey(order)
        await delivery.ack()

    def _obey(self, order: Message) -> None:
        match order:
            case Cancel():
                self._cancel(order)
            case Resend():
                for execution in self._running.values():
                    if execution.subtask.subtask == order.subtask:
                        execution.stream.resend(order.offset, order.to, order.reasoning)
            case Drain(worker=worker) if worker in {None, self._settings.name}:
                self._drain.set()

    def _cancel(self, order: Cancel) -> None:
        wanted = frozenset(order.subtasks)
        for execution in self._running.values():
            if execution.subtask.subtask in wanted and order.execution in {None, execution.id}:
                execution.cancel()
        # One execution that is not wanted says nothing about the next one of the same subtask.
        if order.execution is None:
            self._tombstones.update(wanted)

    async def _beat_forever(self) -> None:
        while True:
            await self._beat()
            await asyncio.sleep(self._settings.heartbeat_seconds)

    async def _beat(self, *, stopped: bool = False) -> None:
        running = (
            RunningSubtask(
                request=execution.subtask.request,
                subtask=execution.subtask.subtask,
                attempt=execution.subtask.attempt,
                execution=execution.id,
                delivery=execution.started.delivery,
            )
            for execution in self._running.values()
        )
        await self._tell(
            Heartbeat(
                worker=self._settings.name,
                model=self._model.name,
                slots=self._model.slots,
                provider=self._model.provider.value,
                host=socket.gethostname(),
                pid=os.getpid(),
                release=RELEASE,
                draining=not self._consuming,
                stopped=stopped,
                running=tuple(running),
            )
        )


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
