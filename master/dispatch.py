"""Dispatch: from the outbox to the queues.

A subtask that finds room in its model's window is published on the request's own path; all others
wait in the outbox and are released in order as the window empties. The outbox row goes only after
the broker's confirm, so a crash anywhere leaves a duplicate at worst, never a loss.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID, uuid5
from zlib import crc32

import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus import tracing
from bus.protocol import DELETION_SECONDS, Bus, BusError, BusUnavailable, PublishUnknown, Unroutable
from db import outbox, requests, subtasks
from db.outbox import Due
from db.requests import StoredRequest
from db.workers import ModelLoad
from master import logged, spans
from master.batches import Batches
from master.facts import Confirmed, Fact
from master.fleet import FleetView
from master.metrics.loops import Loop
from master.outages import Failures, is_outage
from master.planning.compose import messages_for
from master.planning.plan import PLAN_BROKEN, Plan, Step, StepKind
from queue_schemas import topology
from queue_schemas.codec import KeyRing, encode
from queue_schemas.messages import ErrorKind, Failed, SubtaskRequest
from queue_schemas.registry import ProviderName

log = structlog.get_logger(__name__)

HOLD_SECONDS = 20.0
"""How long a taken row is left alone; longer than a publish and the pause after it may take."""
_LONGEST_POSTPONE_SECONDS = 5.0
"""A broker that was away finds its work again that soon."""
_HOPELESS_TRIES = 5
"""About twelve seconds: replicas need not learn of a new model at the same moment."""
STRANGE_SECONDS = 120.0
"""So long work for a model that this replica never knew is left to replicas that know it."""
_STRANGE_TRIES = 2
"""After an outage nobody has touched anything for long: the first try only gives others time."""
_AT_ONCE = 256


@dataclass(frozen=True)
class Unsendable:
    """Why there is no message for an attempt."""

    code: str
    message: str


class Dispatcher:
    """Publishes ready subtasks of this replica's requests and of the common outbox."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: Bus,
        view: FleetView,
        facts: Batches[Fact],
        key_ring: KeyRing | None,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._view = view
        self._key = key_ring
        self._due = asyncio.Event()
        self._publishing: set[asyncio.Task[None]] = set()
        self._declaring: dict[str, asyncio.Task[None]] = {}
        self._facts = facts
        self._failures = Failures(Loop.DISPATCH, log)
        self._known: set[str] = set()
        """Models that this process has had in its registry at some time."""
        self._remember()

    def nudge(self) -> None:
        """The outbox has something new; do not wait for the next look."""
        self._due.set()

    def reserve(self, models: Iterable[str]) -> bool:
        """Whether all these subtasks may be published at once, before anything that waits.

        If so, their places are taken; if not, they wait in the outbox.
        """
        wanted = Counter(models)
        registry = self._view.registry()
        for name, number in wanted.items():
            model = registry.get(name)
            if model is None or self._view.waiting.get(name) or self._view.room(model) < number:
                self._view.enqueuing.begin(wanted)
                for waits in wanted:
                    self._view.waiting[waits] = self._view.waiting.get(waits, 0) + wanted[waits]
                return False
        self._view.publishing.begin(wanted)
        for name, number in wanted.items():
            self._view.count_published(name, number)
        return True

    def stored(self, models: Iterable[str], *, at_once: bool) -> None:
        """What `reserve`, which said `at_once`, was for has been committed."""
        storing = self._view.publishing if at_once else self._view.enqueuing
        storing.end(Counter(models))

    def give_back(self, models: Iterable[str], *, at_once: bool) -> None:
        """Undo `reserve`, which said `at_once`: nothing was stored."""
        self.stored(models, at_once=at_once)
        for name, number in Counter(models).items():
            if at_once:
                self._view.count_published(name, -number)
            else:
                self._view.waiting[name] = max(0, self._view.waiting.get(name, 0) - number)

    def publish_soon(self, calls: Iterable[SubtaskRequest]) -> None:
        """Publish without making the caller wait; failures leave the row in the outbox."""
        for call in calls:
            task = asyncio.create_task(self._publish(call, tries=1))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    def patience_seconds(self, model: str) -> float | None:
        """How long work for a model that is not registered here waits until it is given up.

        None: for ever, as a worker serves it. A file changes on one replica before another, so a
        missing model means something only to a process that has seen it taken out.
        """
        if any(worker["model"] == model for worker in self._view.workers):
            return None
        return 0.0 if model in self._known else STRANGE_SECONDS

    def _remember(self) -> None:
        self._known.update(model.name for model in self._view.registry().models)

    async def run(self, every_seconds: float) -> None:
        """Release what is due until cancelled."""
        try:
            while True:
                if not await self._release_or_log():
                    await self._wait(every_seconds)
        finally:
            for task in self._declaring.values():
                task.cancel()

    async def _release_or_log(self) -> bool:
        try:
            more = await self._release()
        except Exception as error:
            self._failures.met(error)
            return False
        self._failures.over()
        return more

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            return
        finally:
            self._due.clear()

    async def _release(self) -> bool:
        """Publish one batch of each model; True when more may be waiting."""
        mark = self._view.enqueuing.mark()
        async with self._engine.begin() as connection:
            waiting = dict(await outbox.due_by_model(connection))
            taken = await self._take(connection, waiting) if waiting else []
            left = Counter(waiting)
            left.subtract(due.model for due in taken)
            self._view.note_waiting(left, mark)
            stored = await requests.load(connection, list({due.request for due in taken}))
            calls = [
                (due, await _call(connection, stored[due.request], due, self._view))
                for due in taken
            ]
        traces = [stored[due.request].question.get(tracing.TRACEPARENT) for due in taken]
        await asyncio.gather(
            *(self._publish_due(*call, trace) for call, trace in zip(calls, traces, strict=True))
        )
        return len(taken) >= _AT_ONCE

    async def _take(self, connection: AsyncConnection, waiting: Iterable[str]) -> list[Due]:
        self._remember()
        taken: list[Due] = []
        registry = self._view.registry()
        for name in waiting:
            model = registry.get(name)
            if model is None:
                taken += await self._take_strange(connection, name)
            elif room := min(_AT_ONCE, self._view.room(model)):
                taken += await outbox.take(connection, name, room, HOLD_SECONDS)
        return taken

    async def _take_strange(self, connection: AsyncConnection, name: str) -> list[Due]:
        """Rows of a model that is not registered here, if this replica may give them up."""
        patience = self.patience_seconds(name)
        if patience is None:
            return []
        if patience and self._view.loads.get(name, ModelLoad()).queued:
            return []  # somebody has published some of it, so somebody knows it
        return await outbox.take(connection, name, _AT_ONCE, HOLD_SECONDS, patience)

    async def _publish_due(
        self, due: Due, call: SubtaskRequest | Unsendable, trace: str | None
    ) -> None:
        if isinstance(call, Unsendable):
            enough = _HOPELESS_TRIES if due.model in self._known else _STRANGE_TRIES
            if due.tries >= enough and await self._give_up(due, call):
                return
            await self._postpone(due.subtask, due.attempt, due.tries, call.message)
            return
        self._view.count_published(call.model)
        await self._publish(call, due.tries, trace)

    async def _publish(self, call: SubtaskRequest, tries: int, trace: str | None = None) -> None:
        """`trace`: what it belongs to; None: the request that is being submitted."""
        model = self._view.registry().get(call.model)
        if model is None:
            await self._postpone(call.subtask, call.attempt, tries, "the model is not registered")
            return
        body, headers = encode(call, self._key)
        queue = topology.subtasks(model.slug)
        sending = spans.publish(call, queue.name, tries, trace)
        try:
            with sending:
                tracing.inject(headers)
                await self._bus.publish(queue.name, body, headers, correlation_id=str(call.subtask))
        except BusError as error:
            log.warning("dispatch.unpublished", error=str(error), **_names(call))
            self._view.count_published(call.model, -1)
            if isinstance(error, Unroutable):
                self._declare_soon(queue)
            # One model's full or missing queue says nothing of the broker.
            away = isinstance(error, BusUnavailable | PublishUnknown)
            await self._postpone(call.subtask, call.attempt, tries, str(error), refused=away)
        else:
            logged.published(call)
            self._facts.put(Confirmed(call.request, call.subtask, call.attempt))

    async def _give_up(self, due: Due, why: Unsendable) -> bool:
        """Answer in the place of a worker that will never be; False if that cannot be said now.

        It goes the way of every result, so that retries, dependents and endings follow as always.
        """
        failed = Failed(
            request=due.request,
            subtask=due.subtask,
            attempt=due.attempt,
            execution=uuid5(due.subtask, str(due.attempt)),  # said twice, it is still one
            worker="master",
            kind=ErrorKind.PERMANENT,
            code=why.code,
            message=why.message,
        )
        body, headers = encode(failed, self._key)
        try:
            await self._bus.publish(topology.RESULTS.name, body, headers)
        except BusError as error:
            log.warning("dispatch.unpublished", error=str(error), **_names(due))
            return False
        log.warning("dispatch.gave_up", reason=why.message, **_names(due))
        return True

    def _declare_soon(self, queue: topology.Queue) -> None:
        """Once for all messages that came back, and without making any other wait."""
        if queue.name not in self._declaring:
            task = asyncio.create_task(self._declare(queue))
            self._declaring[queue.name] = task
            task.add_done_callback(lambda _: self._declaring.pop(queue.name))

    async def _declare(self, queue: topology.Queue) -> None:
        """Somebody deleted the queue; the next try finds it again."""
        await asyncio.sleep(DELETION_SECONDS)
        try:
            await self._bus.declare([queue])
        except BusError as error:
            log.warning("dispatch.undeclared", queue=queue.name, error=str(error))

    async def _postpone(
        self, subtask: UUID, attempt: int, tries: int, reason: str, *, refused: bool = False
    ) -> None:
        delay = min(0.5 * 2 ** min(tries, 10), _LONGEST_POSTPONE_SECONDS)
        try:
            async with self._engine.begin() as connection:
                await outbox.postpone(connection, subtask, attempt, delay, reason, refused=refused)
        except Exception as error:
            if not is_outage(error):
                raise
            # The row stays held for a while and then comes due by itself.
            self._failures.note(error)


def _names(of: SubtaskRequest | Due) -> dict[str, str | int]:
    return {"request": str(of.request), "subtask": str(of.subtask), "attempt": of.attempt}


async def _call(
    connection: AsyncConnection, stored: StoredRequest, due: Due, view: FleetView
) -> SubtaskRequest | Unsendable:
    """The message of a due attempt, or why it cannot be sent now."""
    try:
        plan = Plan.model_validate(stored.plan)
    except ValidationError as error:
        return Unsendable(PLAN_BROKEN, f"the plan cannot be read: {error.errors()[0]['msg']}")
    step = next((step for step in plan.steps if step.key == due.step), None)
    if step is None:
        return Unsendable(PLAN_BROKEN, f"the plan has no step {due.step!r}")
    step = step.model_copy(update={"model": due.model})
    inputs: dict[str, str | None] = {}
    if step.depends_on:
        known = await subtasks.texts(connection, due.request)
        inputs = {key: known.get(key) for key in step.depends_on}
    call = make_call(
        plan,
        step,
        inputs,
        view=view,
        request=due.request,
        subtask=due.subtask,
        tenant=stored.tenant,
        attempt=due.attempt,
        seed=stored.seed,
        shown=due.shown,
        reply_to=stored.reply_to,
    )
    return Unsendable("model_unavailable", call) if isinstance(call, str) else call


def _seed(seed: int, step: Step) -> int:
    """Candidates of one model differ, each the same way every time."""
    if step.kind is not StepKind.CANDIDATE:
        return seed
    return (seed + crc32(step.key.encode())) % 2**31


def make_call(  # noqa: PLR0913 - a message has as many fields as it has
    plan: Plan,
    step: Step,
    inputs: dict[str, str | None],
    *,
    view: FleetView,
    request: UUID,
    subtask: UUID,
    tenant: UUID,
    attempt: int,
    seed: int,
    shown: str,
    reply_to: str | None,
) -> SubtaskRequest | str:
    """The message for one attempt at a step, or why there cannot be one."""
    model = view.registry().get(step.model)
    if model is None:
        return f"the model {step.model!r} is not registered any more"
    passages = step.passages if model.provider is ProviderName.EXTRACTIVE else ()
    return SubtaskRequest(
        request=request,
        subtask=subtask,
        attempt=attempt,
        tenant=tenant,
        step=step.key,
        model=step.model,
        messages=messages_for(plan, step, inputs),
        parameters=step.parameters,
        passages=passages,
        shown=shown,
        seed=_seed(seed, step),
        timeout_seconds=model.timeout_seconds,
        reply_to=reply_to,
    )
