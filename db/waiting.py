"""Where a request stands among all that waits for the same model."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.outbox import AGEING_SECONDS

# What is on the broker's queue goes first, in its order; then the outbox, in the fair order that
# `outbox.take` publishes it in. Who is busy is counted once: of a burst the statistics know
# nothing yet, and the planner would count anew for each subtask that waits. Who pauses before the
# next try is not in the line.
_PLACE = text("""
    WITH models AS (
        SELECT DISTINCT model FROM millrace.subtasks
         WHERE request_id = :request AND state IN ('ready', 'queued')
           AND ready_at <= now()
    ), busy AS MATERIALIZED (
        SELECT s.model, s.owner, count(*) AS number
          FROM millrace.subtasks s JOIN models m ON m.model = s.model
         WHERE s.finished_at IS NULL AND s.state IN ('queued', 'running')
         GROUP BY s.model, s.owner
    ), waiting AS (
        SELECT s.request_id, s.model, s.id, s.queued_at, o.id AS entry,
               greatest(0, o.priority - floor(
                   extract(epoch FROM now() - o.created_at) / :ageing)) AS class,
               coalesce(b.number, 0) + row_number() OVER (
                   PARTITION BY s.model, o.owner, o.priority ORDER BY o.id) AS turn
          FROM millrace.subtasks s JOIN models m ON m.model = s.model
          LEFT JOIN millrace.outbox o ON o.subtask_id = s.id AND o.attempt = s.attempt
          LEFT JOIN busy b ON b.model = s.model AND b.owner = s.owner
         WHERE s.finished_at IS NULL AND s.state IN ('ready', 'queued')
           AND s.ready_at <= now()
    ), line AS (
        SELECT request_id, model, row_number() OVER (
                   PARTITION BY model
                   ORDER BY entry IS NOT NULL, CASE WHEN entry IS NULL THEN queued_at END,
                            class, turn, entry, id) AS place
          FROM waiting
    )
    SELECT model, place FROM line WHERE request_id = :request ORDER BY place LIMIT 1
""")


@dataclass(frozen=True)
class Place:
    """Of the first of a request's subtasks that will start; 1 is the next one."""

    model: str
    number: int


async def place(connection: AsyncConnection, request: UUID) -> Place | None:
    """Where a request waits; None if nothing of it does."""
    values = {"request": request, "ageing": AGEING_SECONDS}
    row = (await connection.execute(_PLACE, values)).one_or_none()
    return Place(row[0], row[1]) if row else None
