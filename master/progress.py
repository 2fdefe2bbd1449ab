"""What follows when subtasks of a request ended: unblock, skip, expand the plan, or finish.

Runs inside the transaction that applied the results, with the request row locked, so two last
subtasks that end at the same instant still make one ending.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from pydantic import JsonValue, ValidationError
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from db import ledger, requests, subtasks
from db.subtasks import StoredSubtask
from master import ending
from master.ending import Ending
from master.fleet import FleetView
from master.planning.plan import PLAN_BROKEN, Plan, StepKind
from master.planning.question import Question, Retrieval
from master.planning.strategies import expand
from master.submit import new_subtasks
from queue_schemas.messages import Completed
from queue_schemas.states import SUBTASK_TERMINAL, RequestState, SubtaskState


@dataclass(frozen=True)
class Progress:
    """What became of one request."""

    ready: bool = False
    """New work is in the outbox."""
    ended: Ending | None = None


async def progress(
    connection: AsyncConnection,
    request: UUID,
    steps: Sequence[StoredSubtask],
    results: Mapping[UUID, Completed],
    view: FleetView,
) -> Progress:
    """Take a request as far as it can go. `steps` are its subtasks before the results."""
    if len(steps) == 1 and steps[0].id in results and steps[0].kind != StepKind.PLAN:
        return Progress(ended=ending.of_single(results[steps[0].id]))
    # As they stand now: the caller's were read before the results were applied.
    steps = (await subtasks.of_requests(connection, [request]))[request]
    ready = await _expand(connection, request, steps, view)
    moved = True
    while moved:
        steps = (await subtasks.of_requests(connection, [request]))[request]
        unblocked, skipped = await _release(connection, steps)
        ready |= unblocked
        moved = unblocked or skipped
    if any(step.state not in SUBTASK_TERMINAL for step in steps):
        return Progress(ready=ready)
    stored = (await requests.load(connection, [request]))[request]
    rows = await subtasks.details(connection, request)
    tokens = await ledger.tokens_of_answers(connection, request)
    plan = _readable(stored.plan)
    if plan is None:
        return Progress(ended=_unreadable(tokens))
    return Progress(ended=ending.compose(plan, rows, tokens))


def _readable(stored: Mapping[str, Any]) -> Plan | None:
    """A stored plan; None if it cannot be read, which must end its own request only."""
    try:
        return Plan.model_validate(stored)
    except ValidationError:
        return None


def _unreadable(tokens: tuple[int, int]) -> Ending:
    error: dict[str, JsonValue] = {"code": PLAN_BROKEN, "message": "the plan cannot be read"}
    return Ending(
        RequestState.FAILED, error=error, prompt_tokens=tokens[0], completion_tokens=tokens[1]
    )


async def _expand(
    connection: AsyncConnection,
    request: UUID,
    steps: Sequence[StoredSubtask],
    view: FleetView,
) -> bool:
    """Add the steps that a finished plan subtask stands for; once only."""
    planner = next((step for step in steps if step.kind == StepKind.PLAN), None)
    if planner is None or len(steps) > 1 or planner.state not in SUBTASK_TERMINAL:
        return False
    stored = (await requests.load(connection, [request]))[request]
    plan = _readable(stored.plan)
    step = next((s for s in plan.steps if s.key == planner.step), None) if plan else None
    if plan is None or step is None:
        return False
    text = None
    if planner.state is SubtaskState.SUCCEEDED:
        text = (await subtasks.texts(connection, request)).get(planner.step)
    expanded = expand(_question(stored.question), view.fleet(), plan, step, text)
    kept = expanded.model_dump(mode="json", exclude_defaults=True)
    await requests.store_plan(connection, request, kept)
    added = {uuid4(): step for step in expanded.steps if step.key != planner.step}
    await requests.add_steps(connection, request, new_subtasks(added), len(steps))
    return True


def _question(stored: Mapping[str, Any]) -> Question:
    wanted = stored.get("retrieval")
    return Question(
        model=stored["model"],
        messages=tuple(stored["messages"]),
        parameters=stored["parameters"],
        stream=stored["stream"],
        task=stored["task"],
        retrieval=Retrieval.model_validate(wanted) if wanted else None,
    )


async def _release(
    connection: AsyncConnection, steps: Sequence[StoredSubtask]
) -> tuple[bool, bool]:
    """Unblock steps whose inputs ended; skip those of which every input failed."""
    states = {step.step: step.state for step in steps}
    unblocked = skipped = False
    for step in steps:
        needs = [states[key] for key in step.depends_on]
        if step.state is not SubtaskState.BLOCKED or not SUBTASK_TERMINAL.issuperset(needs):
            continue
        if SubtaskState.SUCCEEDED in needs:
            unblocked |= await subtasks.unblock(connection, step.id)
        else:
            error = {"code": "inputs_missing", "message": "nothing it builds on was answered"}
            skipped |= await subtasks.end(
                connection,
                step.id,
                step.attempt,
                SubtaskState.SKIPPED,
                error=to_json(error).decode(),
            )
    return unblocked, skipped
