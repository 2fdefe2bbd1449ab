"""Doing a failed request again.

Terminal states never change, so this makes a new request out of the old one: same owner, question
and plan, but without rules that hold no more. It remembers where it came from, and of one request
there is only one such.
"""

import secrets
from collections.abc import Set
from dataclasses import dataclass
from uuid import UUID, uuid4

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus import tracing
from db import dead, new_requests, rules
from db.dead import Original
from master import logged
from master.metrics.chats import count_accepted
from master.metrics.learned import count_rules
from master.planning.growth import beginning
from master.planning.plan import Plan, PlanUnreadable, read_plan
from master.submit import new_subtasks
from queue_schemas.states import REQUEST_TERMINAL, RequestState, RuleState

BACKGROUND_PRIORITY = 1
"""Nobody waits at a stream for it."""
_HOLDING = frozenset({RuleState.CANARY, RuleState.ACTIVE})


@dataclass(frozen=True)
class Redriven:
    """The request that does another one again."""

    id: UUID
    fresh: bool
    """False: it had been made before."""


class NotRedrivable(Exception):
    """The request is not to be done again; the message says why."""


async def redrive(engine: AsyncEngine, request: UUID, *, model: str | None = None) -> Redriven:
    """Do a request again, on `model` where it had no answer. Doing so twice changes nothing.

    It is committed, and logged and counted as what was accepted. Raises NotRedrivable.
    """
    async with engine.connect() as connection:
        original = await dead.lock_original(connection, request)
        if original is None:
            raise NotRedrivable(f"there is no request {request}")
        if found := await dead.redriven_as(connection, request):
            return Redriven(found, fresh=False)
        plan = await _redrivable_plan(connection, original, model)
        return await _submit(connection, original, plan, model)


async def _submit(
    connection: AsyncConnection, original: Original, plan: Plan, model: str | None
) -> Redriven:
    again = uuid4()
    with tracing.span("submit", request=again, redriven_from=original.id):
        row = _row(original, again, plan, model)
        steps = new_subtasks({uuid4(): step for step in plan.steps})
        await new_requests.add(connection, row, steps)
        await connection.commit()
        count_accepted(plan.strategy)
        count_rules(plan.rules)
        logged.accepted(again, row.model, plan, at_once=False, redriven_from=original.id)
    return Redriven(again, fresh=True)


async def _redrivable_plan(
    connection: AsyncConnection, original: Original, model: str | None
) -> Plan:
    request = original.id
    if original.state not in REQUEST_TERMINAL:
        raise NotRedrivable(f"request {request} is still {original.state}")
    if original.state is RequestState.CANCELLED:
        raise NotRedrivable(f"request {request} was cancelled by its client")
    if original.question.get("erased"):
        raise NotRedrivable(f"request {request} was erased with its conversation")
    if original.question.get("emptied"):
        raise NotRedrivable(f"request {request} was given words that were deleted since")
    try:
        planned = read_plan(original.plan)
    except PlanUnreadable as error:
        raise NotRedrivable(f"of request {request} {error}") from error
    plan = _plan(planned, await dead.unanswered(connection, request), model)
    in_force = await rules.in_force(connection, original.tenant)
    return _under_rules(plan, {rule.id for rule in in_force if rule.state in _HOLDING})


def _plan(plan: Plan, unanswered: set[str], model: str | None) -> Plan:
    """The plan from its beginning."""
    plan = beginning(plan)
    steps = plan.steps
    if model is not None and unanswered and not unanswered & {step.key for step in steps}:
        later = ", ".join(sorted(unanswered))
        raise NotRedrivable(f"what failed ({later}) is planned anew; do it again without a model")
    if model is not None:
        steps = tuple(
            step.model_copy(update={"model": model}) if step.key in unanswered else step
            for step in steps
        )
    return plan.model_copy(update={"steps": steps})


def _under_rules(plan: Plan, holding: Set[UUID]) -> Plan:
    """The plan under the rules that still hold; of a trial of then it is no part any more."""
    kept = tuple(rule for rule in plan.rules if rule.applies and rule.id in holding)
    return plan.model_copy(update={"rules": kept})


def _row(original: Original, again: UUID, plan: Plan, model: str | None) -> new_requests.NewRequest:
    only = plan.steps[0].model if len(plan.steps) == 1 else None
    # A client that named a model asked for that one; now the operator does.
    named = original.model in {step["model"] for step in original.plan["steps"]}
    asked = only if model is not None and named and only is not None else original.model
    seed = original.question["parameters"].get("seed")
    return new_requests.NewRequest(
        id=again,
        tenant=original.tenant,
        end_user=original.end_user,
        model=asked,
        question=to_json(
            # A trace of its own: the old one ended with the old request.
            {**original.question, "model": asked, tracing.TRACEPARENT: tracing.traceparent()}
        ).decode(),
        plan=plan.model_dump_json(),
        seed=seed if isinstance(seed, int) else secrets.randbelow(2**31),
        reply_to=None,
        deadline_seconds=original.deadline_seconds,
        priority=max(original.priority, BACKGROUND_PRIORITY),
        background=True,
        previous=original.previous,
        conversation=original.conversation,
        redriven_from=original.id,
    )
