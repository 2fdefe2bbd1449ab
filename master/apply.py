"""Applying results: the transaction that collect runs for workers and sweep for lost ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from db import requests, subtasks
from db.requests import LockedRequest
from db.subtasks import StoredSubtask
from master import retry
from master.ending import Ending
from master.fleet import FleetView
from master.progress import Progress, progress
from queue_schemas.messages import Completed, Failed
from queue_schemas.states import REQUEST_TERMINAL, RequestState

Result = Completed | Failed

CANCELLED = "cancelled"
"""The code of a result whose execution was told to stop; it only settles the bill."""


@dataclass(frozen=True)
class Limits:
    """How often a subtask may fail."""

    max_attempts: int
    max_losses: int


@dataclass
class Applied:
    """What one batch of results did, for those who must be told after the commit."""

    requests: dict[UUID, LockedRequest] = field(default_factory=dict)
    progress: dict[UUID, Progress] = field(default_factory=dict)
    counted: set[UUID] = field(default_factory=set)
    """Executions whose result counted; the others came too late."""
    models: dict[UUID, str] = field(default_factory=dict)
    """The model of each subtask."""

    @property
    def ready(self) -> bool:
        """Whether the outbox has something new."""
        return any(step.ready for step in self.progress.values())


async def apply(
    connection: AsyncConnection,
    results: Sequence[Result],
    locked: dict[UUID, LockedRequest],
    view: FleetView,
    limits: Limits,
) -> Applied:
    """Write a batch of results, whose requests are locked, and everything that follows."""
    ids = sorted({result.request for result in results})
    applied = Applied(requests=locked)
    before = await subtasks.of_requests(connection, ids)
    known = {subtask.id: subtask for rows in before.values() for subtask in rows}
    applied.models = {subtask.id: subtask.model for subtask in known.values()}
    results = [result for result in results if result.subtask in known]

    moved = await _succeed(connection, results, applied)
    for failed in results:
        if isinstance(failed, Failed) and failed.code != CANCELLED:
            await _fail(connection, failed, limits, applied, moved)
    await subtasks.record(
        connection,
        [(r, applied.requests[r.request].tenant, known[r.subtask].model) for r in results],
        applied.counted,
    )
    await advance(connection, before, moved, view, applied)
    return applied


async def _succeed(
    connection: AsyncConnection, results: Sequence[Result], applied: Applied
) -> dict[UUID, Result]:
    """Apply the successes; returns them by subtask."""
    successes = _newest([r for r in results if isinstance(r, Completed)])
    if not successes:
        return {}
    moved = await subtasks.succeed(connection, successes)
    counted = {r.subtask: r for r in successes if r.subtask in moved}
    applied.counted |= {r.execution for r in counted.values()}
    return dict(counted)


def _newest(results: Sequence[Completed]) -> list[Completed]:
    """One result a subtask: a duplicate in one statement would make its outcome a lottery."""
    return list({r.subtask: r for r in sorted(results, key=lambda r: r.attempt)}.values())


async def _fail(
    connection: AsyncConnection,
    failed: Failed,
    limits: Limits,
    applied: Applied,
    moved: dict[UUID, Result],
) -> None:
    """Apply one failure: another attempt, or the end of the subtask."""
    decision = retry.decide(
        failed.kind,
        failed.attempt,
        max_attempts=limits.max_attempts,
        retry_after_seconds=failed.retry_after_seconds,
    )
    error = to_json({"kind": failed.kind, "code": failed.code, "message": failed.message}).decode()
    if isinstance(decision, retry.Again):
        counted = await subtasks.again(
            connection,
            failed.subtask,
            failed.attempt,
            execution=failed.execution,
            delay_seconds=decision.delay_seconds,
            error=error,
        )
        if counted:
            applied.progress[failed.request] = Progress(ready=True)
    else:
        counted = await subtasks.end(
            connection,
            failed.subtask,
            failed.attempt,
            decision.state,
            error=error,
            execution=failed.execution,
            text=failed.text,
        )
        if counted:
            moved[failed.subtask] = failed
    if counted:
        applied.counted.add(failed.execution)


async def advance(
    connection: AsyncConnection,
    steps: Mapping[UUID, Sequence[StoredSubtask]],
    moved: Mapping[UUID, Result],
    view: FleetView,
    applied: Applied,
) -> None:
    """Take every request of which a subtask ended as far as it can go, and end what is done."""
    results = {key: r for key, r in moved.items() if isinstance(r, Completed)}
    endings: dict[UUID, Ending] = {}
    for request in sorted({result.request for result in moved.values()}):
        locked = applied.requests[request]
        if locked.state in REQUEST_TERMINAL:
            continue
        step = await progress(connection, request, steps[request], results, view)
        earlier = applied.progress.get(request, Progress())
        applied.progress[request] = Progress(step.ready or earlier.ready, step.ended)
        if step.ended:
            endings[request] = step.ended
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
