"""Submit: one transaction makes a request, its subtasks and its outbox rows durable.

Only after the commit is anything published or answered. A crash in between is healed by the
outbox.
"""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import requests
from master.dispatch import HOLD_SECONDS, Dispatcher, make_call
from master.fleet import FleetView
from master.planning.plan import Plan, Step
from master.planning.question import Question
from master.planning.strategies import plan as make_plan
from queue_schemas.messages import SubtaskRequest
from queue_schemas.states import RequestState, SubtaskState


@dataclass(frozen=True)
class Accepted:
    """A request that is committed, and so will get an answer or a terminal error."""

    request: UUID
    tenant: UUID
    plan: Plan
    subtasks: Mapping[UUID, str]
    """The step of each subtask."""


@dataclass(frozen=True)
class Asker:
    """Who asks: the owner of the API key, and the person the front end names."""

    tenant: UUID
    end_user: str | None = None


@dataclass(frozen=True)
class Submission:
    """Everything submit needs besides the question."""

    engine: AsyncEngine
    dispatcher: Dispatcher
    view: FleetView
    reply_to: str
    request_seconds: float


async def submit(to: Submission, question: Question, asker: Asker) -> Accepted:
    """Plan and commit a question, and publish what can start.

    Raises `UnknownModel`, or the database's errors, with nothing stored.
    """
    plan = make_plan(question, to.view.fleet())
    request, seed = uuid4(), _seed(question)
    ids = {uuid4(): step for step in plan.steps}
    at_once = to.dispatcher.has_room(step.model for step in plan.steps if not step.depends_on)
    async with to.engine.begin() as connection:
        await requests.add(
            connection,
            {
                "id": request,
                "tenant_id": asker.tenant,
                "end_user": asker.end_user,
                "model": question.model,
                "state": RequestState.ACCEPTED.value,
                "question": asdict(question),
                "plan": plan.model_dump(mode="json"),
                "seed": seed,
                "reply_to": to.reply_to,
                "deadline_at": _seconds_from_now(to.request_seconds),
            },
            [subtask_row(request, asker.tenant, subtask, step) for subtask, step in ids.items()],
            [
                outbox_row(asker.tenant, subtask, step, held=at_once)
                for subtask, step in ids.items()
                if not step.depends_on
            ],
        )
    accepted = Accepted(request, asker.tenant, plan, {i: step.key for i, step in ids.items()})
    if at_once:
        to.dispatcher.publish_soon(_calls(to, accepted, ids, seed))
    else:
        to.dispatcher.nudge()
    return accepted


def _calls(
    to: Submission, accepted: Accepted, ids: Mapping[UUID, Step], seed: int
) -> list[SubtaskRequest]:
    calls = [
        make_call(
            accepted.plan,
            step,
            {},
            view=to.view,
            request=accepted.request,
            subtask=subtask,
            tenant=accepted.tenant,
            attempt=1,
            seed=seed,
            shown="",
            reply_to=to.reply_to,
        )
        for subtask, step in ids.items()
        if not step.depends_on
    ]
    # A model can only have vanished by a reload just now; the outbox then says so.
    return [call for call in calls if isinstance(call, SubtaskRequest)]


def _seed(question: Question) -> int:
    wanted = question.parameters.get("seed")
    return wanted if isinstance(wanted, int) else secrets.randbelow(2**31)


def subtask_row(request: UUID, tenant: UUID, subtask: UUID, step: Step) -> dict[str, Any]:
    """A step as a row of `subtasks`."""
    blocked = bool(step.depends_on)
    return {
        "id": subtask,
        "tenant_id": tenant,
        "request_id": request,
        "step": step.key,
        "kind": step.kind.value,
        "model": step.model,
        "depends_on": list(step.depends_on),
        "state": (SubtaskState.BLOCKED if blocked else SubtaskState.READY).value,
        "ready_at": None if blocked else text("now()"),
    }


def outbox_row(tenant: UUID, subtask: UUID, step: Step, *, held: bool) -> dict[str, Any]:
    """The first attempt at a step as a row of `outbox`.

    `held` rows are published by this replica itself; should it die first, they come due.
    """
    return {
        "tenant_id": tenant,
        "subtask_id": subtask,
        "attempt": 1,
        "model": step.model,
        "available_at": _seconds_from_now(HOLD_SECONDS if held else 0.0),
    }


def _seconds_from_now(seconds: float) -> Any:
    return text(f"now() + make_interval(secs => {seconds:f})")


async def add_steps(
    connection: AsyncConnection, request: UUID, tenant: UUID, steps: Mapping[UUID, Step]
) -> None:
    """Store steps that a plan subtask's result added; the dispatcher finds them in the outbox."""
    await requests.add_subtasks(
        connection,
        [subtask_row(request, tenant, subtask, step) for subtask, step in steps.items()],
        [
            outbox_row(tenant, subtask, step, held=False)
            for subtask, step in steps.items()
            if not step.depends_on
        ],
    )
