"""The outbox: attempts that are to be published. A row lives until the broker has confirmed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

AGEING_SECONDS = 300.0
"""After so long, work of a lower class counts as one class better."""

_DUE_MODELS = text("""
    SELECT model, count(*) FROM millrace.outbox WHERE available_at <= now() GROUP BY model
""")

# Fair order: by class, one class better for every `ageing` seconds of waiting; within a class
# the owner with the fewest subtasks at work or before this one goes first, so somebody's hundred
# parts stand behind everybody else's first. The order is a query over rows: no replica keeps it.
#
# Taking a row only postpones it: should this replica die before the confirm, the row comes due
# again and the duplicate is absorbed by the guarded claim.
_TAKE = text("""
    WITH busy AS (
        SELECT owner, count(*) AS number FROM millrace.subtasks
         WHERE model = :model AND finished_at IS NULL AND state IN ('queued', 'running')
         GROUP BY owner
    ), waiting AS (
        SELECT o.id,
               greatest(0, o.priority - floor(
                   extract(epoch FROM now() - o.created_at) / :ageing)) AS class,
               coalesce(b.number, 0) + row_number() OVER (
                   PARTITION BY o.owner, o.priority ORDER BY o.id) AS turn
          FROM millrace.outbox o LEFT JOIN busy b ON b.owner = o.owner
         WHERE o.model = :model AND o.available_at <= now()
    ), chosen AS (
        SELECT id, class, turn FROM waiting ORDER BY class, turn, id LIMIT :limit
    ), due AS (
        SELECT o.id, c.class, c.turn FROM millrace.outbox o JOIN chosen c ON c.id = o.id
         WHERE o.available_at <= now() FOR UPDATE OF o SKIP LOCKED
    )
    UPDATE millrace.outbox o
       SET available_at = now() + make_interval(secs => :hold), tries = o.tries + 1
      FROM due, millrace.subtasks s
     WHERE o.id = due.id AND s.id = o.subtask_id
    RETURNING o.id, o.subtask_id, o.attempt, o.tries, s.request_id, s.step, s.shown, o.model,
              due.class, due.turn
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
    model: str
    """Of this attempt; the last ones may go to another model than the plan says."""


async def due_by_model(connection: AsyncConnection) -> Mapping[str, int]:
    """How many rows wait to be published now, by model."""
    return {row[0]: row[1] for row in await connection.execute(_DUE_MODELS)}


async def take(
    connection: AsyncConnection, model: str, limit: int, hold_seconds: float
) -> list[Due]:
    """Take up to `limit` due rows of a model for this replica, in fair order."""
    values = {
        "model": model,
        "limit": limit,
        "hold": hold_seconds,
        "ageing": AGEING_SECONDS,
    }
    rows = list(await connection.execute(_TAKE, values))
    rows.sort(key=lambda row: (row[8], row[9], row[0]))
    return [Due(*row[:8]) for row in rows]


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
