"""Applying results: the transaction that collect runs for workers and sweep for lost ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from db import judgements, ledger, requests, subtasks, workers
from db.judgements import NewJudgement
from db.requests import LockedRequest
from db.subtasks import StoredSubtask
from master import retry
from master.attempts import Limits, Next, Setback, after_failure
from master.ending import Ending
from master.fleet import FleetView
from master.metrics.chats import RetryReason, SubtaskEnding
from master.progress import Progress, progress
from queue_schemas.messages import CANCELLED, Completed, ErrorKind, Failed
from queue_schemas.states import REQUEST_TERMINAL, RequestState, SubtaskState

Result = Completed | Failed


def is_only_a_bill(result: Result) -> bool:
    """Whether its execution was told to stop: it says what that cost, and moves nothing."""
    return isinstance(result, Failed) and result.code == CANCELLED


def stops(results: Iterable[Result], known: Mapping[UUID, StoredSubtask]) -> dict[UUID, float]:
    """Seconds from a request's early end to this, by executions that it found at work.

    Both moments are the database's. What was dropped before it began had nothing to stop.
    """
    found = {
        result.execution: known[result.subtask] for result in results if is_only_a_bill(result)
    }
    return {
        execution: subtask.ended_seconds
        for execution, subtask in found.items()
        if subtask.state is SubtaskState.CANCELLED
        and subtask.execution == execution
        and subtask.ended_seconds is not None
    }


@dataclass
class Applied:
    """What one batch of results did, for those who must be told after the commit."""

    requests: dict[UUID, LockedRequest] = field(default_factory=dict)
    progress: dict[UUID, Progress] = field(default_factory=dict)
    counted: set[UUID] = field(default_factory=set)
    """Executions whose result counted; the others came too late."""
    entered: set[UUID] = field(default_factory=set)
    """Executions that are new in the ledger; the others are results that were delivered again."""
    traces: dict[UUID, str] = field(default_factory=dict)
    """Of requests, as far as they are known."""
    models: dict[UUID, str] = field(default_factory=dict)
    """The model of each subtask."""
    stops: dict[UUID, float] = field(default_factory=dict)
    """How long executions that were told to stop took for it."""
    endings: list[SubtaskEnding] = field(default_factory=list)
    retries: list[tuple[str, RetryReason]] = field(default_factory=list)
    """Of which models, and why."""
    starts: list[tuple[UUID, str, float, int]] = field(default_factory=list)
    """Of results that came before their execution was claimed: request, model, seconds waited,
    delivery."""
    judged: list[NewJudgement] = field(default_factory=list)
    setbacks: list[Setback] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether the outbox has something new."""
        return any(step.ready for step in self.progress.values())

    def note_ending(self, request: UUID, model: str, state: SubtaskState) -> None:
        """A subtask of this request ended."""
        self.endings.append(SubtaskEnding(model, self.requests[request].strategy, state))


async def apply(
    connection: AsyncConnection,
    results: Sequence[Result],
    locked: dict[UUID, LockedRequest],
    view: FleetView,
    limits: Limits,
    shown: Mapping[UUID, str],
) -> Applied:
    """Write a batch of results, whose requests are locked, and everything that follows.

    `shown` is what clients have seen of their subtasks.
    """
    ids = sorted({result.request for result in results})
    applied = Applied(requests=locked)
    before = await subtasks.of_requests(connection, ids)
    known = {subtask.id: subtask for rows in before.values() for subtask in rows}
    applied.models = {subtask.id: subtask.model for subtask in known.values()}
    results = [result for result in results if result.subtask in known]
    applied.stops = stops(results, known)

    def agrees(result: Result) -> bool:
        return result.text.startswith(shown.get(result.subtask, ""))

    moved = await _succeed(connection, [r for r in results if agrees(r)], known, applied)
    for result in results:
        if isinstance(result, Completed) and not agrees(result):
            said = shown[result.subtask]
            await _continue(connection, result, said, limits, applied, moved)
    for failed in results:
        if isinstance(failed, Failed) and not is_only_a_bill(failed):
            subtask = known[failed.subtask]
            following = await after_failure(connection, failed, subtask, limits, view)
            # What the client saw stays in the record.
            text = failed.text if agrees(failed) else shown[failed.subtask]
            kept = failed.model_copy(update={"text": text})
            await _fail(connection, kept, subtask.model, following, applied, moved)
    models = await _models(connection, results, known)
    applied.entered = await ledger.record(
        connection,
        [(r, applied.requests[r.request].tenant, models[r.execution]) for r in results],
        applied.counted,
    )
    await advance(connection, before, moved, view, applied)
    return applied


async def _succeed(
    connection: AsyncConnection,
    results: Sequence[Result],
    known: Mapping[UUID, StoredSubtask],
    applied: Applied,
) -> dict[UUID, Result]:
    """Apply the successes; returns them by subtask."""
    successes = _newest([r for r in results if isinstance(r, Completed)], known)
    if not successes:
        return {}
    moved = await subtasks.succeed(connection, successes)
    counted = {r.subtask: r for r in successes if r.subtask in moved}
    applied.counted |= {r.execution for r in counted.values()}
    for result in counted.values():
        before = known[result.subtask]
        applied.note_ending(result.request, before.model, SubtaskState.SUCCEEDED)
        if before.state is not SubtaskState.RUNNING:
            waited = (before.ready_seconds or 0.0) - result.usage.engine_seconds
            applied.starts.append((result.request, before.model, waited, result.delivery))
    return dict(counted)


async def _continue(
    connection: AsyncConnection,
    diverged: Completed,
    shown: str,
    limits: Limits,
    applied: Applied,
    moved: dict[UUID, Result],
) -> None:
    """A regenerated text that contradicts what was shown: have it continued from there."""
    said = "it was answered anew, and otherwise than what was shown"
    failed = Failed(
        **diverged.model_dump(include=set(Failed.model_fields) - {"status", "text"}),
        kind=ErrorKind.TRANSIENT,
        code="diverged",
        message=said,
        text=shown,
    )
    if diverged.attempt >= limits.max_attempts:
        following = Next(retry.GiveUp(SubtaskState.DEAD))
        model = applied.models[diverged.subtask]
        await _fail(connection, failed, model, following, applied, moved)
    elif await subtasks.again(
        connection,
        diverged.subtask,
        diverged.attempt,
        execution=diverged.execution,
        delivery=diverged.delivery,
        shown=shown,
    ):
        applied.progress[diverged.request] = Progress(ready=True)
        applied.retries.append((applied.models[diverged.subtask], RetryReason.DIVERGED))


def _newest(results: Sequence[Completed], known: Mapping[UUID, StoredSubtask]) -> list[Completed]:
    """One result a subtask: a duplicate in one statement would make its outcome a lottery.

    The latest delivery of the latest attempt; between equals the one that has the lease.
    """

    def order(r: Completed) -> tuple[int, int, bool]:
        return r.attempt, r.delivery, r.execution == known[r.subtask].execution

    return list({r.subtask: r for r in sorted(results, key=order)}.values())


async def _models(
    connection: AsyncConnection,
    results: Sequence[Result],
    known: Mapping[UUID, StoredSubtask],
) -> dict[UUID, str]:
    """The model that each execution ran on, also where the subtask has moved to another since."""
    models = {r.execution: known[r.subtask].model for r in results}
    late = [r for r in results if r.attempt != known[r.subtask].attempt]
    if late:
        served = await workers.models_of(connection, [r.worker for r in late])
        models |= {r.execution: served[r.worker] for r in late if r.worker in served}
    return models


async def _fail(
    connection: AsyncConnection,
    failed: Failed,
    model: str,
    following: Next,
    applied: Applied,
    moved: dict[UUID, Result],
) -> None:
    """Apply one failure of a model: another attempt, or the end of the subtask."""
    decision = following.decision
    error = to_json({"kind": failed.kind, "code": failed.code, "message": failed.message}).decode()
    if isinstance(decision, retry.Again):
        counted = await subtasks.again(
            connection,
            failed.subtask,
            failed.attempt,
            execution=failed.execution,
            delivery=failed.delivery,
            delay_seconds=decision.delay_seconds,
            error=error,
            model=following.model,
        )
        if counted:
            applied.progress[failed.request] = Progress(ready=True)
            applied.retries.append((model, RetryReason(failed.kind.value)))
    else:
        counted = await subtasks.end(
            connection,
            failed.subtask,
            failed.attempt,
            decision.state,
            error=error,
            execution=failed.execution,
            delivery=failed.delivery,
            text=failed.text,
        )
        if counted:
            moved[failed.subtask] = failed
            applied.note_ending(failed.request, model, decision.state)
    if counted:
        applied.counted.add(failed.execution)
        applied.setbacks.append(Setback(failed, following))


async def advance(
    connection: AsyncConnection,
    steps: Mapping[UUID, Sequence[StoredSubtask]],
    moved: Mapping[UUID, Result],
    view: FleetView,
    applied: Applied,
) -> None:
    """Take every request of which a subtask ended as far as it can go, and end what is done."""
    results = {key: r for key, r in moved.items() if isinstance(r, Completed)}
    concerned = {result.request for result in moved.values()}
    await settle(connection, concerned, steps, results, view, applied)


async def settle(
    connection: AsyncConnection,
    concerned: Iterable[UUID],
    steps: Mapping[UUID, Sequence[StoredSubtask]],
    results: Mapping[UUID, Completed],
    view: FleetView,
    applied: Applied,
) -> None:
    """Take these requests, which are locked, as far as they can go."""
    endings: dict[UUID, Ending] = {}
    for request in sorted(concerned):
        locked = applied.requests[request]
        if locked.state in REQUEST_TERMINAL:
            continue
        step = await progress(connection, request, steps[request], results, view)
        earlier = applied.progress.get(request, Progress())
        applied.progress[request] = Progress(step.ready or earlier.ready, step.ended)
        for model in step.skipped:
            applied.note_ending(request, model, SubtaskState.SKIPPED)
        if step.ended:
            applied.judged += step.judgements
            endings[request] = step.ended
            await judgements.put(connection, locked.tenant, request, step.judgements)
    await _finish(connection, endings)


async def _finish(connection: AsyncConnection, endings: Mapping[UUID, Ending]) -> None:
    completed = [
        (request, end.answer or "", end.finish_reason or "stop", _json(end.error))
        for request, end in endings.items()
        if end.state is RequestState.COMPLETED
    ]
    if completed:
        await requests.complete(connection, completed)
    for request, end in endings.items():
        if end.state is not RequestState.COMPLETED:
            await requests.finish(connection, request, end.state, error=_json(end.error))


def _json(error: Mapping[str, object] | None) -> str | None:
    return None if error is None else to_json(error).decode()
