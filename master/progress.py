"""What follows when subtasks of a request ended: unblock, skip, expand the plan, or finish.

Runs inside the transaction that applied the results, with the request row locked, so two last
subtasks that end at the same instant still make one ending.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from pydantic import JsonValue
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from db import ledger, new_requests, requests, subtasks
from db.judgements import NewJudgement
from db.subtasks import StoredSubtask
from master import ending
from master.ending import Ending
from master.fleet import FleetView
from master.learning.verdicts import judgements_of
from master.planning.growth import GROWING_KINDS, Outcome
from master.planning.memory import woven
from master.planning.plan import PLAN_BROKEN, Plan, PlanUnreadable, read_plan
from master.planning.question import Question, Retrieval
from master.planning.remembered import Remembered
from master.planning.strategies import grow
from master.submit import new_subtasks
from queue_schemas.messages import Completed
from queue_schemas.states import SUBTASK_TERMINAL, RequestState, SubtaskState


@dataclass(frozen=True)
class Progress:
    """What became of one request."""

    ready: bool = False
    """New work is in the outbox."""
    ended: Ending | None = None
    judgements: Sequence[NewJudgement] = ()
    """What its steps said of each other, once it has ended."""
    skipped: Sequence[str] = ()
    """The models of steps that will never begin."""


async def progress(
    connection: AsyncConnection,
    request: UUID,
    steps: Sequence[StoredSubtask],
    results: Mapping[UUID, Completed],
    view: FleetView,
) -> Progress:
    """Take a request as far as it can go. `steps` are its subtasks before the results."""
    if len(steps) == 1 and steps[0].id in results and steps[0].kind not in GROWING_KINDS:
        return Progress(ended=ending.of_single(results[steps[0].id]))
    # As they stand now: the caller's were read before the results were applied.
    steps = (await subtasks.of_requests(connection, [request]))[request]
    ready = False
    moved = True
    skipped: list[str] = []
    while moved:
        unblocked, given_up = await _release(connection, steps)
        skipped += given_up
        if unblocked or given_up:
            steps = (await subtasks.of_requests(connection, [request]))[request]
        added = await _grow(connection, request, steps, view)
        if added:
            steps = (await subtasks.of_requests(connection, [request]))[request]
        ready |= unblocked or added
        moved = unblocked or bool(given_up) or added
    if any(step.state not in SUBTASK_TERMINAL for step in steps):
        return Progress(ready=ready, skipped=skipped)
    stored = (await requests.load(connection, [request]))[request]
    rows = await subtasks.details(connection, request)
    tokens = await ledger.tokens_of_answers(connection, request)
    plan = _readable(stored.plan)
    if plan is None:
        return Progress(ended=_unreadable(tokens), skipped=skipped)
    judged = judgements_of(plan, {row["step"]: row["id"] for row in rows})
    ended = ending.compose(plan, rows, tokens)
    return Progress(ended=ended, judgements=judged, skipped=skipped)


def _readable(stored: Mapping[str, Any]) -> Plan | None:
    """A stored plan; None if it cannot be read, which must end its own request only."""
    try:
        return read_plan(stored)
    except PlanUnreadable:
        return None


def _unreadable(tokens: tuple[int, int]) -> Ending:
    error: dict[str, JsonValue] = {"code": PLAN_BROKEN, "message": "the plan cannot be read"}
    return Ending(
        RequestState.FAILED, error=error, prompt_tokens=tokens[0], completion_tokens=tokens[1]
    )


async def _grow(
    connection: AsyncConnection,
    request: UUID,
    steps: Sequence[StoredSubtask],
    view: FleetView,
) -> bool:
    """Add the steps that follow from those that have ended; whether there are any."""
    ended = {step.step for step in steps if step.state in SUBTASK_TERMINAL}
    if not ended or not any(step.kind in GROWING_KINDS for step in steps):
        return False
    stored = (await requests.load(connection, [request]))[request]
    plan = _readable(stored.plan)
    if plan is None or not ended <= {step.key for step in plan.steps}:
        return False
    rows = await subtasks.details(connection, request)
    outcomes = {row["step"]: _outcome(row) for row in rows if row["step"] in ended}
    question = woven(_question(stored.question))
    fleet = replace(view.fleet(), learned=question.learned)
    grown = grow(question, fleet, plan, outcomes)
    if grown == plan:
        return False
    kept = grown.model_dump(mode="json", exclude_defaults=True)
    await requests.store_plan(connection, request, kept)
    known = {step.step for step in steps}
    added = {uuid4(): step for step in grown.steps if step.key not in known}
    if added:
        await new_requests.add_steps(connection, request, new_subtasks(added), len(steps))
    return bool(added)


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(row["text"] or "", failed=row["state"] != SubtaskState.SUCCEEDED)


def _question(stored: Mapping[str, Any]) -> Question:
    wanted, remembered = stored.get("retrieval"), stored.get("remembered")
    return Question(
        model=stored["model"],
        messages=tuple(stored["messages"]),
        parameters=stored["parameters"],
        stream=stored["stream"],
        task=stored["task"],
        retrieval=Retrieval.model_validate(wanted) if wanted else None,
        remembered=Remembered.model_validate(remembered) if remembered else None,
        learned=stored.get("learned", {}),
    )


async def _release(
    connection: AsyncConnection, steps: Sequence[StoredSubtask]
) -> tuple[bool, list[str]]:
    """Unblock steps whose inputs ended; skip those of which every input failed.

    Whether there are any of the first, and the models of the others.
    """
    states = {step.step: step.state for step in steps}
    unblocked = False
    skipped: list[str] = []
    for step in steps:
        needs = [states[key] for key in step.depends_on]
        if step.state is not SubtaskState.BLOCKED or not SUBTASK_TERMINAL.issuperset(needs):
            continue
        if SubtaskState.SUCCEEDED in needs:
            unblocked |= await subtasks.unblock(connection, step.id)
        else:
            error = {"code": "inputs_missing", "message": "nothing it builds on was answered"}
            said, state = to_json(error).decode(), SubtaskState.SKIPPED
            if await subtasks.end(connection, step.id, step.attempt, state, error=said):
                skipped.append(step.model)
    return unblocked, skipped
