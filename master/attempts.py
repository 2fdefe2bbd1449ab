"""The next attempt of a subtask: whether there is one, when, and on which model."""

import time
from dataclasses import dataclass, replace
from typing import Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from db import requests, subtasks
from db.leases import Lost
from db.subtasks import StoredSubtask
from master import retry
from master.fleet import FleetView
from master.planning.assign import TYPICAL_OUTPUT_TOKENS, output_limit, requested_limit
from master.planning.chat import estimate_chat_tokens
from master.planning.compose import messages_for
from master.planning.plan import Plan, Step
from master.settings import MasterSettings
from queue_schemas.messages import Failed


@dataclass(frozen=True)
class Limits:
    """How often a subtask may fail, and how often those of one model are tried again."""

    max_attempts: int
    max_losses: int
    retries_per_minute: float

    @classmethod
    def of(cls, settings: MasterSettings) -> Self:
        """As the settings say."""
        return cls(settings.max_attempts, settings.max_losses, settings.retries_per_minute)


@dataclass(frozen=True)
class Next:
    """What follows a failed attempt. `model`: set where it is to be another one."""

    decision: retry.Again | retry.GiveUp
    model: str | None = None


@dataclass(frozen=True)
class Setback:
    """A failure that counted, and what follows it."""

    failed: Failed
    following: Next


async def after_failure(
    connection: AsyncConnection,
    failed: Failed,
    subtask: StoredSubtask,
    limits: Limits,
    view: FleetView,
) -> Next:
    """Decide on a failure that a worker reported."""
    decision = retry.decide(
        failed.kind,
        failed.attempt,
        max_attempts=limits.max_attempts,
        retry_after_seconds=failed.retry_after_seconds,
    )
    if failed.attempt != subtask.attempt:
        return Next(decision)  # it comes too late to count
    model = None
    if retry.goes_elsewhere(failed.kind, failed.code, failed.attempt, limits.max_attempts):
        model = await _elsewhere(connection, subtask.request, subtask.step, subtask.model, view)
    if model is not None:
        decision = retry.Again(0.0)  # the fault, or the pause, was the other model's
    return _within_budget(Next(decision, model), subtask.model, limits, view)


async def after_loss(
    connection: AsyncConnection, lost: Lost, limits: Limits, view: FleetView
) -> Next:
    """Decide on a subtask whose worker fell silent."""
    most = {"max_attempts": limits.max_attempts, "max_losses": limits.max_losses}
    decision = retry.decide_on_loss(lost.attempt, lost.losses, **most)
    model = None
    if isinstance(decision, retry.Again) and retry.goes_elsewhere_on_loss(
        lost.attempt, lost.losses, **most
    ):
        model = await _elsewhere(connection, lost.request_id, lost.step, lost.model, view)
    return _within_budget(Next(decision, model), lost.model, limits, view)


def _within_budget(following: Next, current: str, limits: Limits, view: FleetView) -> Next:
    decision, model = following.decision, following.model or current
    if isinstance(decision, retry.GiveUp):
        return following
    bucket, wait = retry.spend(view.retries.get(model), time.monotonic(), limits.retries_per_minute)
    view.retries[model] = bucket
    return replace(following, decision=retry.Again(max(decision.delay_seconds, wait)))


async def _elsewhere(
    connection: AsyncConnection, request: UUID, step_key: str, current: str, view: FleetView
) -> str | None:
    """The other model that takes over. A client that named a model gets that one or none."""
    stored = (await requests.load(connection, [request]))[request]
    plan = Plan.model_validate(stored.plan)
    step = next((step for step in plan.steps if step.key == step_key), None)
    if step is None or stored.model == step.model:
        return None
    fleet = view.fleet()
    planned = fleet.registry.get(step.model)
    if planned is None:
        tokens = await _tokens(connection, request, plan, step)
    elif step.depends_on:  # the texts that it is given are not in the plan
        tokens = planned.context_length
    else:
        messages = messages_for(plan, step, {})
        tokens = estimate_chat_tokens(messages) + output_limit(step.parameters, planned)
    found = retry.another_model(step.model, current, tokens, fleet)
    return found.name if found else None


async def _tokens(connection: AsyncConnection, request: UUID, plan: Plan, step: Step) -> int:
    """Room that a step needs, of whose planned model nothing is known any more."""
    known = await subtasks.texts(connection, request) if step.depends_on else {}
    messages = messages_for(plan, step, {key: known.get(key) for key in step.depends_on})
    output = requested_limit(step.parameters) or TYPICAL_OUTPUT_TOKENS
    return estimate_chat_tokens(messages) + output
