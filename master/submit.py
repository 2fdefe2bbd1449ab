"""Submit: one statement makes a request, its subtasks and its outbox rows durable.

Only after the commit is anything published or answered. A crash in between is healed by the
outbox.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from pydantic import JsonValue
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncEngine

from bus import tracing
from db import new_requests
from db.asked import Asked, Message
from master import logged
from master.dispatch import HOLD_SECONDS, Dispatcher, make_call
from master.fleet import FleetView
from master.learning import again
from master.learning.routing import Routing
from master.metrics.chats import count_accepted
from master.metrics.learned import count_rules
from master.planning.context import bare_question
from master.planning.front_end import background_task
from master.planning.memory import woven
from master.planning.plan import Plan, Step, StepKind
from master.planning.question import Question
from master.planning.strategies import plan as make_plan
from master.planning.under_rules import under_rules
from master.retrieval.lookups import look_up
from master.retrieval.search import Searcher
from master.rulebook import Rulebook
from master.rules.matching import RuleInForce
from queue_schemas.messages import SubtaskRequest

_RETRY_AFTER_SECONDS = 5.0
_BACKGROUND = 1
"""The class of what nobody waits for."""


@dataclass(frozen=True)
class Accepted:
    """A request that is committed, and so will get an answer or a terminal error."""

    request: UUID
    tenant: UUID
    plan: Plan
    subtasks: Mapping[UUID, str]
    """The step of each subtask."""
    ahead: int = 0
    """Subtasks that waited for the same model when it came."""
    wait_seconds: float | None = None
    """Until it is expected to start."""
    cached: bool = False
    """It is an earlier request, which asked the same and has its answer."""
    conversation: UUID | None = None
    """The conversation that it is a part of."""


class TooBusy(Exception):
    """The model's backlog is at its bound; nothing was stored."""

    def __init__(self, model: str, wait_seconds: float) -> None:
        super().__init__(f"too much waits for {model}")
        self.model = model
        self.wait_seconds = wait_seconds


class BrokerAway(Exception):
    """Nothing could be published for so long that accepting more helps nobody."""


@dataclass(frozen=True)
class Asker:
    """Who asks: the owner of the API key, and the person the front end names."""

    tenant: UUID
    end_user: str | None = None


@dataclass(frozen=True)
class Terms:
    """How a request is to be handled, apart from what it asks."""

    background: bool = False
    """It goes on when nobody follows it."""
    followed: bool = True
    """Somebody waits for it from the beginning."""
    previous: UUID | None = None
    """The request whose conversation it goes on."""
    note: Mapping[str, JsonValue] | None = None
    """What its API needs to show it again; stored with the question, as `response`."""
    idempotency_key: str | None = None
    """The client's own name for it; a second request of that name is refused by the database."""
    body_digest: bytes | None = None
    """What the name stands for."""
    cache_digest: bytes | None = None
    """What was asked, where the answer may be given again."""
    rules: Sequence[RuleInForce] | None = None
    """Those in force, where the digest says so; None: as they are when it is planned."""
    message: Message | None = None
    """The message of Open WebUI that it answers."""
    conversation: UUID | None = None
    """The conversation that it is to be a part of; deleted meanwhile, the database refuses it."""


@dataclass(frozen=True)
class Submission:
    """Everything submit needs besides the question."""

    engine: AsyncEngine
    dispatcher: Dispatcher
    view: FleetView
    reply_to: str
    request_seconds: float
    max_backlog: int
    max_unpublished_seconds: float
    searcher: Searcher
    rulebook: Rulebook
    routing: Routing


async def submit(
    to: Submission, question: Question, asker: Asker, terms: Terms | None = None
) -> Accepted:
    """Plan and commit a question, and publish what can start.

    Raises `UnknownModel`, `TooBusy`, `BrokerAway`, the errors of looking something up, or the
    database's, with nothing stored.
    """
    request = uuid4()
    with tracing.span("submit", request=request):
        return await _submit(to, question, asker, terms or Terms(), request)


async def _submit(
    to: Submission, question: Question, asker: Asker, terms: Terms, request: UUID
) -> Accepted:
    rules = terms.rules
    if rules is None:
        rules = await to.rulebook.in_force(asker.tenant)
    learned = to.routing.learned(asker.tenant)
    fleet = replace(to.view.fleet(), learned=learned.models, tried=learned.tried)
    question = replace(question, learned=learned.models)
    question = under_rules(question, rules, request, fleet)
    asked = woven(question)
    with tracing.span("plan") as planning:
        plan = make_plan(asked, fleet)
        planning.note(strategy=plan.strategy, steps=len(plan.steps))
    _admit(to, plan)
    plan = await look_up(to.searcher, asker.tenant, plan, asked, to.view.fleet())
    seed = _seed(question)
    ids = {uuid4(): step for step in plan.steps}
    starting = [step.model for step in plan.steps if not step.depends_on]
    first = to.view.registry().get(plan.steps[0].model)
    ahead = to.view.backlog(first.name) if first else 0
    at_once = to.dispatcher.reserve(starting)
    row = _row(to, question, asker, terms, plan, request, seed)
    # Held rows are published by this replica itself; should it die first, they come due.
    held_seconds = HOLD_SECONDS if at_once else 0.0
    try:
        with tracing.span("store"):
            async with to.engine.connect() as connection:
                # No transaction around it: the one statement commits by itself.
                await new_requests.add(connection, row, new_subtasks(ids), held_seconds)
    except BaseException:
        to.dispatcher.give_back(starting, at_once=at_once)
        raise
    to.dispatcher.stored(starting, at_once=at_once)
    count_accepted(plan.strategy)
    count_rules(plan.rules)
    logged.accepted(request, question.model, plan, at_once=at_once)
    waits = first if not at_once else None
    accepted = Accepted(
        request,
        asker.tenant,
        plan,
        {subtask: step.key for subtask, step in ids.items()},
        ahead=ahead if waits else 0,
        wait_seconds=to.view.expected_wait_seconds(waits, ahead) if waits else None,
        conversation=terms.conversation,
    )
    if at_once:
        to.dispatcher.publish_soon(_calls(to, accepted, ids, row))
    else:
        to.dispatcher.nudge()
    return accepted


def _row(
    to: Submission,
    question: Question,
    asker: Asker,
    terms: Terms,
    plan: Plan,
    request: UUID,
    seed: int,
) -> new_requests.NewRequest:
    asked = vars(question) | ({"response": terms.note} if terms.note is not None else {})
    if question.remembered is not None:
        asked["remembered"] = question.remembered.in_words()
    if parent := tracing.traceparent():
        asked[tracing.TRACEPARENT] = parent  # whoever publishes a step later goes on with the trace
    is_task = plan.steps[0].kind is StepKind.TASK
    asked |= _listed_as(question, is_task=is_task)
    return new_requests.NewRequest(
        id=request,
        tenant=asker.tenant,
        end_user=asker.end_user,
        model=question.model,
        question=to_json(asked).decode(),
        plan=plan.model_dump_json(exclude_defaults=True),
        seed=seed,
        reply_to=to.reply_to if terms.followed else None,
        deadline_seconds=to.request_seconds,
        priority=0 if terms.followed else _BACKGROUND,
        background=terms.background,
        previous=terms.previous,
        idempotency_key=terms.idempotency_key,
        body_digest=terms.body_digest,
        cache_digest=terms.cache_digest,
        conversation=terms.conversation,
        asked=None if is_task else _asked(question, asker, terms),
    )


def _listed_as(question: Question, *, is_task: bool) -> dict[str, JsonValue]:
    """What lists say of it, where that is not the last thing that the user said."""
    if is_task:
        return {"recognised": background_task(question)}
    bare = bare_question(question.messages)
    return {"asked": bare} if bare else {}


def _asked(question: Question, asker: Asker, terms: Terms) -> Asked | None:
    if terms.conversation is not None:  # saying the same again there goes on with it
        return Asked(message=terms.message) if terms.message else None
    return again.asked(question.messages, asker.end_user, terms.message)


def _admit(to: Submission, plan: Plan) -> None:
    """Refuse what would only wait: before anything is written, so that a retry is cheap."""
    if to.view.unpublishable_seconds > to.max_unpublished_seconds:
        raise BrokerAway
    for name in {step.model for step in plan.steps}:
        if to.view.backlog(name) >= to.max_backlog:
            model = to.view.registry().get(name)
            wait = to.view.expected_wait_seconds(model) if model else None
            raise TooBusy(name, wait or _RETRY_AFTER_SECONDS)


def _calls(
    to: Submission, accepted: Accepted, ids: Mapping[UUID, Step], row: new_requests.NewRequest
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
            seed=row.seed,
            shown="",
            reply_to=row.reply_to,
        )
        for subtask, step in ids.items()
        if not step.depends_on
    ]
    # A model can only have vanished by a reload just now; the outbox then says so.
    return [call for call in calls if isinstance(call, SubtaskRequest)]


def _seed(question: Question) -> int:
    wanted = question.parameters.get("seed")
    return wanted if isinstance(wanted, int) else secrets.randbelow(2**31)


def new_subtasks(steps: Mapping[UUID, Step]) -> list[new_requests.NewSubtask]:
    """Steps as rows to be stored."""
    return [
        new_requests.NewSubtask(
            subtask, step.key, step.kind.value, step.model, step.depends_on, step.seconds
        )
        for subtask, step in steps.items()
    ]
