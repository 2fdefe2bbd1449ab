"""The outbox: attempts that are to be published. A row lives until the broker has confirmed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_DUE_MODELS = text("""
    SELECT model, count(*) FROM millrace.outbox WHERE available_at <= now() GROUP BY model
""")

# Taking a row only postpones it: should this replica die before the confirm, the row comes due
# again and the duplicate is absorbed by the guarded claim.
_TAKE = text("""
    WITH due AS (
        SELECT id FROM millrace.outbox
         WHERE model = :model AND available_at <= now()
         ORDER BY priority, id LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE millrace.outbox o
       SET available_at = now() + make_interval(secs => :hold), tries = o.tries + 1
      FROM due, millrace.subtasks s
     WHERE o.id = due.id AND s.id = o.subtask_id
    RETURNING o.id, o.subtask_id, o.attempt, o.tries, s.request_id, s.step, s.shown
""")

_POSTPONE = text("""
    UPDATE millrace.outbox
       SET available_at = now() + make_interval(secs => :delay), last_error = :error
     WHERE subtask_id = :subtask AND attempt = :attempt
""")


@dataclass(frozen=True)
class Due:
    """An attempt that this replica has taken to publish."""

    id: int
    subtask: UUID
    attempt: int
    tries: int
    request: UUID
    step: str
    shown: str


async def due_by_model(connection: AsyncConnection) -> Mapping[str, int]:
    """How many rows wait to be published now, by model."""
    return {row[0]: row[1] for row in await connection.execute(_DUE_MODELS)}


async def take(
    connection: AsyncConnection, model: str, limit: int, hold_seconds: float
) -> list[Due]:
    """Take up to `limit` due rows of a model for this replica, for so many seconds."""
    values = {"model": model, "limit": limit, "hold": hold_seconds}
    rows = [Due(*row) for row in await connection.execute(_TAKE, values)]
    return sorted(rows, key=lambda due: due.id)


async def postpone(
    connection: AsyncConnection, subtask: UUID, attempt: int, delay_seconds: float, error: str
) -> None:
    """Publishing failed: try again later, and keep the reason."""
    values = {"subtask": subtask, "attempt": attempt, "delay": delay_seconds, "error": error}
    await connection.execute(_POSTPONE, values)


async def oldest_seconds(connection: AsyncConnection) -> float | None:
    """Age of the oldest unpublished row; None when all is published."""
    age = await connection.scalar(
        text("SELECT extract(epoch FROM now() - min(created_at)) FROM millrace.outbox")
    )
    return None if age is None else float(age)
