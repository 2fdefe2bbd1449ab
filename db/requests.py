"""Requests that are stored: their states, their plans and their answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, literal_column, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import requests, sql_list
from db.statement import Statement
from queue_schemas.states import (
    REQUEST_MOVES,
    SUBTASK_MOVES,
    RequestState,
    SubtaskState,
    sources,
)


@dataclass(frozen=True)
class LockedRequest:
    """A request row that this transaction holds."""

    id: UUID
    tenant: UUID
    state: RequestState
    reply_to: str | None
    adopted: bool
    """Another replica streams it than the one its messages name."""
    strategy: str | None
    """Of its plan; None where that cannot be read."""
    seconds: float
    """Since it was accepted, by the clock of this transaction, which is its end if it ends here."""


# Ready-made, since it runs for every batch; SQLAlchemy's, so that it begins the transaction. No
# key changes, so whoever stores something that refers to the request need not wait.
_LOCK = text("""
    SELECT id, tenant_id AS tenant, state, reply_to, adopted, plan ->> 'strategy' AS strategy,
           extract(epoch FROM now() - created_at)::float8 AS seconds
      FROM millrace.requests WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
""")
_LOCK_FREE = text(f"{_LOCK.text} SKIP LOCKED")


async def lock(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, LockedRequest]:
    """Hold these requests until the transaction ends, always in the same order."""
    rows = await connection.execute(_LOCK, {"ids": list(ids)})
    return {row["id"]: _locked(row) for row in rows.mappings()}


async def lock_free(
    connection: AsyncConnection, ids: Collection[UUID]
) -> dict[UUID, LockedRequest]:
    """Those of them that nobody holds: for work that must not wait, since it comes again."""
    rows = await connection.execute(_LOCK_FREE, {"ids": list(ids)})
    return {row["id"]: _locked(row) for row in rows.mappings()}


_LOCKED: tuple[Any, ...] = (
    requests.c.id,
    requests.c.tenant_id.label("tenant"),
    requests.c.state,
    requests.c.reply_to,
    requests.c.adopted,
    requests.c.plan["strategy"].astext.label("strategy"),
    literal_column("extract(epoch FROM now() - created_at)::float8").label("seconds"),
)


def _locked(row: RowMapping) -> LockedRequest:
    return LockedRequest(**{**row, "state": RequestState(row["state"])})


_TRACEPARENT = text("SELECT question ->> 'traceparent' FROM millrace.requests WHERE id = :id")


async def traceparent(connection: AsyncConnection, request: UUID) -> str | None:
    """The span that accepted this request; None where nothing was recorded then."""
    found: str | None = await connection.scalar(_TRACEPARENT, {"id": request})
    return found


async def adopt(connection: AsyncConnection, request: UUID, queue: str) -> None:
    """Have another replica stream a request that this transaction holds."""
    values = {"reply_to": queue, "adopted": True}
    await connection.execute(update(requests).where(requests.c.id == request).values(values))


_HIDE = text("""
    UPDATE millrace.requests SET question = question || '{"hidden": true}' WHERE id = :request
""")


async def hide(connection: AsyncConnection, request: UUID) -> None:
    """Mark a request as deleted by its owner; its record and its bill stay."""
    await connection.execute(_HIDE, {"request": request})


@dataclass(frozen=True)
class Standing:
    """How far a request is, to be compared with what its stream knows."""

    id: UUID
    reply_to: str | None
    adopted: bool
    ended: bool
    steps: tuple[int, int]
    """How many subtasks it has, and how many of them have ended."""
    running: Sequence[UUID]


_STANDINGS = text("""
    SELECT q.id, q.reply_to, q.adopted, q.finished_at IS NOT NULL, count(s.id),
           count(s.finished_at), array_agg(s.id) FILTER (WHERE s.state = 'running')
      FROM millrace.requests q JOIN millrace.subtasks s ON s.request_id = q.id
     WHERE q.id = ANY(:ids) GROUP BY q.id
""")


async def standings(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """How far these requests are."""
    rows = await connection.execute(_STANDINGS, {"ids": list(ids)})
    return {
        id_: Standing(id_, reply_to, adopted, ended, (total, finished), running or ())
        for id_, reply_to, adopted, ended, total, finished, running in rows
    }


_BEGIN = {
    state: Statement(f"""
        UPDATE millrace.requests
           SET state = '{state}', started_at = coalesce(started_at, now())
         WHERE id = ANY(:ids) AND state IN ({sql_list(sources(REQUEST_MOVES, state))})
    """)
    for state in (RequestState.PLANNING, RequestState.RUNNING)
}


async def begin(connection: AsyncConnection, ids: Sequence[UUID], state: RequestState) -> None:
    """Move requests to `planning` or `running`, where they are not further already."""
    if ids:
        await _BEGIN[state].run(connection, {"ids": list(ids)})


_FINISH = {
    state: text(f"""
        UPDATE millrace.requests
           SET state = '{state}', answer = CAST(:answer AS text),
               finish_reason = CAST(:finish_reason AS text), error = CAST(:error AS jsonb),
               started_at = coalesce(started_at, now()), finished_at = now()
         WHERE id = :id AND state IN ({sql_list(sources(REQUEST_MOVES, state))})
    """)
    for state in (
        RequestState.COMPLETED,
        RequestState.FAILED,
        RequestState.CANCELLED,
        RequestState.EXPIRED,
    )
}


async def finish(
    connection: AsyncConnection,
    request: UUID,
    state: RequestState,
    *,
    answer: str | None = None,
    finish_reason: str | None = None,
    error: str | None = None,
) -> bool:
    """Give a request its one terminal state. False: it has one already. `error` is JSON."""
    values = {"id": request, "answer": answer, "finish_reason": finish_reason, "error": error}
    return (await connection.execute(_FINISH[state], values)).rowcount == 1


_COMPLETE = Statement(f"""
    UPDATE millrace.requests q
       SET state = 'completed', answer = r.answer, finish_reason = r.finish_reason,
           error = r.error, started_at = coalesce(q.started_at, now()), finished_at = now()
      FROM unnest(CAST(:ids AS uuid[]), CAST(:answers AS text[]), CAST(:reasons AS text[]),
                  CAST(:errors AS jsonb[])) AS r(id, answer, finish_reason, error)
     WHERE q.id = r.id
       AND q.state IN ({sql_list(sources(REQUEST_MOVES, RequestState.COMPLETED))})
""")


async def complete(
    connection: AsyncConnection, answers: Sequence[tuple[UUID, str, str, str | None]]
) -> None:
    """Complete many requests that this transaction holds: (id, answer, finish reason, error)."""
    ids, texts, reasons, errors = zip(*answers, strict=True)
    values = {"ids": ids, "answers": texts, "reasons": reasons, "errors": errors}
    await _COMPLETE.run(connection, {name: list(value) for name, value in values.items()})


_DROP_SUBTASKS = text(f"""
    UPDATE millrace.subtasks SET state = 'cancelled', finished_at = now(), lease_until = NULL
     WHERE request_id = :request
       AND state IN ({sql_list(sources(SUBTASK_MOVES, SubtaskState.CANCELLED))})
    RETURNING id, model
""")
_DROP_OUTBOX = text("""
    DELETE FROM millrace.outbox o USING millrace.subtasks s
     WHERE o.subtask_id = s.id AND s.request_id = :request
""")


async def drop_subtasks(connection: AsyncConnection, request: UUID) -> dict[UUID, str]:
    """Cancel what of a request is still open; returns the subtasks to stop, with their models."""
    rows = await connection.execute(_DROP_SUBTASKS, {"request": request})
    dropped = {row.id: row.model for row in rows}
    await connection.execute(_DROP_OUTBOX, {"request": request})
    return dropped


async def overdue(connection: AsyncConnection, limit: int) -> list[UUID]:
    """Open requests past their deadline."""
    query = (
        select(requests.c.id)
        .where(requests.c.finished_at.is_(None), requests.c.deadline_at < text("now()"))
        .order_by(requests.c.deadline_at)
        .limit(limit)
    )
    return list((await connection.execute(query)).scalars())


@dataclass(frozen=True)
class StoredRequest:
    """A whole request row."""

    id: UUID
    tenant: UUID
    end_user: str | None
    model: str
    state: RequestState
    question: dict[str, Any]
    plan: dict[str, Any]
    seed: int
    reply_to: str | None
    background: bool
    previous: UUID | None
    conversation: UUID | None
    shared: bool
    """Others of the tenant who ask the same may be given its answer."""
    answer: str | None
    finish_reason: str | None
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    read_at: datetime
    """Now, by the clock that all the other times are from."""


_WHOLE = (
    requests.c.id,
    requests.c.tenant_id.label("tenant"),
    requests.c.end_user,
    requests.c.model,
    requests.c.state,
    requests.c.question,
    requests.c.plan,
    requests.c.seed,
    requests.c.reply_to,
    requests.c.background,
    requests.c.previous_id.label("previous"),
    requests.c.conversation_id.label("conversation"),
    requests.c.cache_digest.is_not(None).label("shared"),
    requests.c.answer,
    requests.c.finish_reason,
    requests.c.error,
    requests.c.created_at,
    requests.c.started_at,
    requests.c.finished_at,
    requests.c.deadline_at,
    func.now().label("read_at"),
)


def _stored(row: RowMapping) -> StoredRequest:
    return StoredRequest(**{**row, "state": RequestState(row["state"])})


async def load(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, StoredRequest]:
    """Whole requests by id; for the master's own work, not for a client's question."""
    rows = await connection.execute(select(*_WHOLE).where(requests.c.id.in_(ids)))
    return {row["id"]: _stored(row) for row in rows.mappings()}


async def find(connection: AsyncConnection, request: UUID, tenant: UUID) -> StoredRequest | None:
    """A request as its owner may see it; None also when it belongs to somebody else."""
    query = select(*_WHOLE).where(requests.c.id == request, requests.c.tenant_id == tenant)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _stored(row) if row else None


async def store_plan(connection: AsyncConnection, request: UUID, plan: Mapping[str, Any]) -> None:
    """Replace the plan, after its plan step was expanded."""
    query = update(requests).where(requests.c.id == request).values(plan=plan)
    await connection.execute(query)
