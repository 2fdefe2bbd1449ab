"""What the database says that the broker should have, and what in the database cannot be right."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import sql_list
from queue_schemas.states import SubtaskState

_MOVING = sql_list((SubtaskState.READY, SubtaskState.QUEUED, SubtaskState.RUNNING))


@dataclass(frozen=True)
class Counts:
    """Open subtasks and outbox rows of one model."""

    ready: int = 0
    queued: int = 0
    running: int = 0
    due: int = 0
    held: int = 0
    """Outbox rows that wait: for a retry's time, or in a replica's hands."""


_COUNTS = text("""
    WITH open AS (
        SELECT s.model,
               count(*) FILTER (WHERE s.state = 'ready'
                                   OR (s.state = 'queued' AND o.id IS NOT NULL)) AS ready,
               count(*) FILTER (WHERE s.state = 'queued' AND o.id IS NULL) AS queued,
               count(*) FILTER (WHERE s.state = 'running') AS running
          FROM millrace.subtasks s
          LEFT JOIN millrace.outbox o ON o.subtask_id = s.id AND o.attempt = s.attempt
         WHERE s.finished_at IS NULL GROUP BY s.model
    ), unpublished AS (
        SELECT model, count(*) FILTER (WHERE available_at <= now()) AS due,
               count(*) FILTER (WHERE available_at > now()) AS held
          FROM millrace.outbox GROUP BY model
    )
    SELECT coalesce(o.model, u.model), coalesce(o.ready, 0), coalesce(o.queued, 0),
           coalesce(o.running, 0), coalesce(u.due, 0), coalesce(u.held, 0)
      FROM open o FULL JOIN unpublished u ON u.model = o.model
""")


async def counts(connection: AsyncConnection) -> dict[str, Counts]:
    """What is open, by model."""
    return {row[0]: Counts(*row[1:]) for row in await connection.execute(_COUNTS)}


_QUEUED = text("""
    SELECT s.id, s.attempt FROM millrace.subtasks s
     WHERE s.model = :model AND s.state = 'queued' AND s.finished_at IS NULL
       AND s.queued_at < now() - make_interval(secs => :age) AND NOT EXISTS (
           SELECT 1 FROM millrace.outbox o WHERE o.subtask_id = s.id AND o.attempt = s.attempt)
     ORDER BY s.queued_at, s.id
""")


async def queued(
    connection: AsyncConnection, model: str, age_seconds: float
) -> list[tuple[UUID, int]]:
    """(Subtask, attempt) of which the broker confirmed a message at least so long ago."""
    values = {"model": model, "age": age_seconds}
    return [(row[0], row[1]) for row in await connection.execute(_QUEUED, values)]


@dataclass(frozen=True)
class Standing:
    """Where the subtask of a message stands."""

    state: SubtaskState
    attempt: int
    model: str


_STANDING = text("SELECT id, state, attempt, model FROM millrace.subtasks WHERE id = ANY(:ids)")


async def standing(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Where these subtasks stand; those that nobody knows are left out."""
    rows = await connection.execute(_STANDING, {"ids": list(ids)})
    return {row[0]: Standing(SubtaskState(row[1]), row[2], row[3]) for row in rows}


_SILENT = text("""
    SELECT id FROM millrace.subtasks
     WHERE state = 'running' AND lease_until < now() - make_interval(secs => :age)
     ORDER BY lease_until
""")
_OVERDUE = text("""
    SELECT id FROM millrace.requests
     WHERE finished_at IS NULL AND deadline_at < now() - make_interval(secs => :age)
     ORDER BY deadline_at
""")
# Blocked steps wait for steps that move; where none does, nobody will ever move the request.
_IDLE = text(f"""
    SELECT q.id FROM millrace.requests q
     WHERE q.finished_at IS NULL AND NOT EXISTS (
           SELECT 1 FROM millrace.subtasks s WHERE s.request_id = q.id AND s.state IN ({_MOVING}))
     ORDER BY q.created_at
""")
# A confirm may be written a moment after its subtask was started, hence the age.
_STALE_WHERE = """
     o.subtask_id = s.id AND o.created_at < now() - make_interval(secs => :age)
       AND (o.attempt <> s.attempt OR s.state NOT IN ('ready', 'queued'))
"""
_FIND_STALE = text(f"""
    SELECT s.id FROM millrace.outbox o, millrace.subtasks s WHERE {_STALE_WHERE} ORDER BY o.id
""")
_DROP_STALE = text(f"""
    DELETE FROM millrace.outbox o USING millrace.subtasks s WHERE {_STALE_WHERE}
    RETURNING s.id
""")


async def silent(connection: AsyncConnection, age_seconds: float) -> list[UUID]:
    """Running subtasks whose lease has been over for so long."""
    return list((await connection.execute(_SILENT, {"age": age_seconds})).scalars())


async def overdue(connection: AsyncConnection, age_seconds: float) -> list[UUID]:
    """Open requests whose deadline passed so long ago."""
    return list((await connection.execute(_OVERDUE, {"age": age_seconds})).scalars())


async def idle(connection: AsyncConnection) -> list[UUID]:
    """Open requests none of whose subtasks moves any more."""
    return list((await connection.execute(_IDLE)).scalars())


async def stale(connection: AsyncConnection, age_seconds: float) -> list[UUID]:
    """Subtasks of outbox rows that are of an older attempt, or need no message any more."""
    return list((await connection.execute(_FIND_STALE, {"age": age_seconds})).scalars())


async def drop_stale(connection: AsyncConnection, age_seconds: float) -> list[UUID]:
    """Delete such outbox rows."""
    return list((await connection.execute(_DROP_STALE, {"age": age_seconds})).scalars())
