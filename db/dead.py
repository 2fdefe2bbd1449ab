"""Dead subtasks: those whose attempts are exhausted, until somebody does them again or lets go."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_schemas.states import RequestState


@dataclass(frozen=True)
class DeadSubtask:
    """A dead subtask with what a person wants to know of its request."""

    id: UUID
    request: UUID
    step: str
    kind: str
    model: str
    worker: str | None
    attempt: int
    losses: int
    error: dict[str, Any] | None
    died_at: datetime
    seen_at: datetime | None
    tenant: str
    end_user: str | None
    asked_model: str
    """What the client asked for."""
    question: dict[str, Any]
    request_state: RequestState
    redriven_as: UUID | None
    """The request that does its request again."""


_DEAD = """
    SELECT s.id, s.request_id AS request, s.step, s.kind, s.model, s.worker, s.attempt, s.losses,
           s.error, s.finished_at AS died_at, s.seen_at, t.name AS tenant, q.end_user,
           q.model AS asked_model, q.question, q.state AS request_state, r.id AS redriven_as
      FROM millrace.subtasks s
      JOIN millrace.requests q ON q.id = s.request_id
      JOIN millrace.tenants t ON t.id = s.tenant_id
      LEFT JOIN millrace.requests r ON r.redriven_from = q.id
     WHERE s.state = 'dead'
"""
_LIST = text(f"""
    {_DEAD}
       AND (CAST(:model AS text) IS NULL OR s.model = :model)
       AND (CAST(:since AS float8) IS NULL OR s.finished_at > now() - make_interval(secs => :since))
       AND (CAST(:tenant AS uuid) IS NULL OR s.tenant_id = :tenant)
       AND (:settled OR (s.seen_at IS NULL AND r.id IS NULL))
     ORDER BY s.finished_at DESC, s.id LIMIT :limit
""")
_GET = text(f"{_DEAD} AND s.id = :id AND s.tenant_id = :tenant")
_FIND = text(f"""
    {_DEAD} AND (s.id::text LIKE :prefix OR s.request_id::text LIKE :prefix)
     ORDER BY s.request_id, s.position
""")


async def list_dead(
    connection: AsyncConnection,
    *,
    model: str | None = None,
    since_seconds: float | None = None,
    settled: bool = False,
    tenant: UUID | None = None,
    limit: int = 1000,
) -> list[DeadSubtask]:
    """Dead subtasks, latest first; with `settled` also those that somebody has dealt with."""
    values = {
        "model": model,
        "since": since_seconds,
        "settled": settled,
        "tenant": tenant,
        "limit": limit,
    }
    return [_dead(row) for row in (await connection.execute(_LIST, values)).mappings()]


async def get(connection: AsyncConnection, id_: UUID, tenant: UUID) -> DeadSubtask | None:
    """A dead subtask of this tenant."""
    found = await connection.execute(_GET, {"id": id_, "tenant": tenant})
    row = found.mappings().one_or_none()
    return _dead(row) if row else None


async def find(connection: AsyncConnection, prefix: str) -> list[DeadSubtask]:
    """Dead subtasks whose id, or whose request's id, begins so."""
    values = {"prefix": f"{prefix.lower()}%"}
    return [_dead(row) for row in (await connection.execute(_FIND, values)).mappings()]


def _dead(row: Any) -> DeadSubtask:
    return DeadSubtask(**{**row, "request_state": RequestState(row["request_state"])})


_DROP = text("""
    UPDATE millrace.subtasks SET seen_at = now()
     WHERE id = ANY(:ids) AND state = 'dead' AND seen_at IS NULL RETURNING id
""")


async def drop(connection: AsyncConnection, ids: Sequence[UUID]) -> list[UUID]:
    """Let these be; they stay in their request's record. Returns those not dropped before."""
    return list((await connection.execute(_DROP, {"ids": list(ids)})).scalars())


@dataclass(frozen=True)
class Original:
    """A request that is to be done again, held until the transaction ends."""

    id: UUID
    tenant: UUID
    end_user: str | None
    model: str
    state: RequestState
    question: dict[str, Any]
    plan: dict[str, Any]
    priority: int
    previous: UUID | None
    conversation: UUID | None
    deadline_seconds: float


_ORIGINAL = text("""
    SELECT id, tenant_id AS tenant, end_user, model, state, question, plan, priority,
           previous_id AS previous, conversation_id AS conversation,
           extract(epoch FROM deadline_at - created_at)::float8 AS deadline_seconds
      FROM millrace.requests WHERE id = :id FOR UPDATE
""")
_REDRIVEN = text("SELECT id FROM millrace.requests WHERE redriven_from = :id")
_UNANSWERED = text("""
    SELECT step FROM millrace.subtasks WHERE request_id = :id AND state <> 'succeeded'
""")


async def lock_original(connection: AsyncConnection, request: UUID) -> Original | None:
    """The request, held, so that two who do it again at the same time make one request."""
    row = (await connection.execute(_ORIGINAL, {"id": request})).mappings().one_or_none()
    return Original(**{**row, "state": RequestState(row["state"])}) if row else None


async def redriven_as(connection: AsyncConnection, request: UUID) -> UUID | None:
    """The request that does this one again, if there is one."""
    found: UUID | None = await connection.scalar(_REDRIVEN, {"id": request})
    return found


async def unanswered(connection: AsyncConnection, request: UUID) -> set[str]:
    """The steps of a request that did not succeed."""
    return set((await connection.execute(_UNANSWERED, {"id": request})).scalars())
