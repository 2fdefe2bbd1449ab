"""New requests, and the subtasks that they become: one statement stores all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.asked import ADD_ASKED, Asked
from db.statement import Statement


@dataclass(frozen=True)
class NewRequest:
    """A request to be stored. `question` and `plan` are JSON."""

    id: UUID
    tenant: UUID
    end_user: str | None
    model: str
    question: str
    plan: str
    seed: int
    reply_to: str | None
    deadline_seconds: float
    priority: int = 0
    background: bool = False
    previous: UUID | None = None
    redriven_from: UUID | None = None
    idempotency_key: str | None = None
    body_digest: bytes | None = None
    cache_digest: bytes | None = None
    asked: Asked | None = None
    conversation: UUID | None = None


@dataclass(frozen=True)
class NewSubtask:
    """A step to be stored. It is ready unless it depends on others."""

    id: UUID
    step: str
    kind: str
    model: str
    depends_on: Sequence[str] = ()
    seconds: float | None = None
    """It is given up if it takes longer."""


_ADD_SUBTASKS = """
    added AS (
        INSERT INTO millrace.subtasks
               (id, tenant_id, request_id, position, step, kind, model, owner, depends_on, state,
                ready_at, deadline_at)
        SELECT t.id, q.tenant_id, q.id, t.position, t.step, t.kind, t.model,
               q.tenant_id || '/' || coalesce(q.end_user, ''), string_to_array(t.needs, ','),
               CASE WHEN t.needs = '' THEN 'ready' ELSE 'blocked' END,
               CASE WHEN t.needs = '' THEN now() END, now() + make_interval(secs => t.seconds)
          FROM unnest(CAST(:ids AS uuid[]), CAST(:positions AS integer[]), CAST(:steps AS text[]),
                      CAST(:kinds AS text[]), CAST(:models AS text[]), CAST(:needs AS text[]),
                      CAST(:seconds AS double precision[]))
               AS t(id, position, step, kind, model, needs, seconds), request q
        RETURNING id, tenant_id, model, owner, state
    )
    INSERT INTO millrace.outbox
           (tenant_id, subtask_id, attempt, model, owner, priority, available_at)
    SELECT a.tenant_id, a.id, 1, a.model, a.owner, q.priority,
           now() + make_interval(secs => :held)
      FROM added a, request q WHERE a.state = 'ready'
"""
_REQUEST = """
    INSERT INTO millrace.requests
           (id, tenant_id, end_user, model, question, plan, seed, reply_to, deadline_at,
            priority, background, previous_id, redriven_from, idempotency_key, body_digest,
            cache_digest, conversation_id, asked_digest)
    VALUES (:request, :tenant, :end_user, :model, CAST(:question AS jsonb),
            CAST(:plan AS jsonb), :seed, :reply_to,
            now() + make_interval(secs => :deadline), :priority, :background, :previous,
            :redriven_from, :idempotency_key, :body_digest, :cache_digest, :conversation,
            :asked)
    RETURNING id, tenant_id, end_user, priority, model, asked_digest
"""
# With the request, not before it: else whoever gives exchanges vectors finds none and is done.
_TO_EMBED = """
    conversation AS (
        UPDATE millrace.conversations SET embed_at = now()
         WHERE id = CAST(:conversation AS uuid)
    ),
"""
_ADD = {
    (asked, inside): Statement(
        f"WITH request AS ({_REQUEST}), {ADD_ASKED * asked} {_TO_EMBED * inside} {_ADD_SUBTASKS}"
    )
    for asked in (False, True)
    for inside in (False, True)
}
"""By whether something is kept of who asked, and whether it is a part of a conversation."""
_ADD_MORE = text(f"""
    WITH request AS (
        SELECT id, tenant_id, end_user, priority FROM millrace.requests WHERE id = :request
    ), {_ADD_SUBTASKS}
""")


async def add(
    connection: AsyncConnection,
    request: NewRequest,
    steps: Sequence[NewSubtask],
    held_seconds: float = 0.0,
) -> None:
    """Store an accepted request, its subtasks, and outbox rows for those that are ready.

    One statement, so it is atomic also without a transaction around it. For `held_seconds` the
    outbox rows are left to the caller, who publishes them itself.
    """
    values = {
        "end_user": request.end_user,
        "model": request.model,
        "question": request.question,
        "plan": request.plan,
        "seed": request.seed,
        "reply_to": request.reply_to,
        "deadline": request.deadline_seconds,
        "tenant": request.tenant,
        "priority": request.priority,
        "background": request.background,
        "previous": request.previous,
        "redriven_from": request.redriven_from,
        "idempotency_key": request.idempotency_key,
        "body_digest": request.body_digest,
        "cache_digest": request.cache_digest,
        "conversation": request.conversation,
        **(request.asked or Asked()).values(),
    }
    statement = _ADD[request.asked is not None, request.conversation is not None]
    await statement.run(connection, values | _rows(request.id, steps, 0, held_seconds))


async def add_steps(
    connection: AsyncConnection,
    request: UUID,
    steps: Sequence[NewSubtask],
    first_position: int,
) -> None:
    """Store steps that a plan subtask's result added; they count on from `first_position`."""
    await connection.execute(_ADD_MORE, _rows(request, steps, first_position, 0.0))


def _rows(
    request: UUID, steps: Sequence[NewSubtask], first: int, held_seconds: float
) -> dict[str, Any]:
    return {
        "request": request,
        "held": held_seconds,
        "ids": [step.id for step in steps],
        "positions": list(range(first, first + len(steps))),
        "steps": [step.step for step in steps],
        "kinds": [step.kind for step in steps],
        "models": [step.model for step in steps],
        "needs": [",".join(step.depends_on) for step in steps],
        "seconds": [step.seconds for step in steps],
    }
