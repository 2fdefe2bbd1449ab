"""The outbox: attempts that are to be published. A row lives until the broker has confirmed it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.statement import Statement

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
         WHERE o.model = :model AND o.available_at <= now() - make_interval(secs => :untouched)
    ), chosen AS (
        SELECT id, class, turn FROM waiting ORDER BY class, turn, id LIMIT :limit
    ), due AS (
        SELECT o.id, c.class, c.turn FROM millrace.outbox o JOIN chosen c ON c.id = o.id
         WHERE o.available_at <= now() - make_interval(secs => :untouched)
           FOR UPDATE OF o SKIP LOCKED
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
       SET available_at = now() + make_interval(secs => :delay), last_error = :error,
           refused_at = CASE WHEN :refused THEN coalesce(refused_at, now()) END
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
    connection: AsyncConnection,
    model: str,
    limit: int,
    hold_seconds: float,
    untouched_seconds: float = 0.0,
) -> list[Due]:
    """Take up to `limit` due rows of a model for this replica, in fair order.

    Only such as have been due for `untouched_seconds` without anybody's taking them.
    """
    values = {
        "model": model,
        "limit": limit,
        "hold": hold_seconds,
        "ageing": AGEING_SECONDS,
        "untouched": untouched_seconds,
    }
    rows = list(await connection.execute(_TAKE, values))
    rows.sort(key=lambda row: (row[8], row[9], row[0]))
    return [Due(*row[:8]) for row in rows]


async def postpone(
    connection: AsyncConnection,
    subtask: UUID,
    attempt: int,
    delay_seconds: float,
    error: str,
    *,
    refused: bool,
) -> None:
    """Publishing failed: try again later, and keep the reason.

    `refused`: by the broker. Since when it has been refusing is kept until another reason comes.
    """
    values = {
        "subtask": subtask,
        "attempt": attempt,
        "delay": delay_seconds,
        "error": error,
        "refused": refused,
    }
    await connection.execute(_POSTPONE, values)


_FORGET_SENT = Statement("""
    DELETE FROM millrace.outbox o
     USING unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS c(id, attempt)
     WHERE o.subtask_id = c.id AND o.attempt = c.attempt
""")


async def forget_sent(connection: AsyncConnection, sent: Sequence[tuple[UUID, int]]) -> None:
    """Delete the outbox rows of (subtask, attempt) pairs that the broker has confirmed."""
    await _FORGET_SENT.run(connection, _pairs(sent))


def _pairs(sent: Sequence[tuple[UUID, int]]) -> dict[str, list[UUID] | list[int]]:
    return {"ids": [pair[0] for pair in sent], "attempts": [pair[1] for pair in sent]}


_PUBLISH_AGAIN = """
    lost AS (
        UPDATE millrace.subtasks s SET queued_at = now()
          FROM waiting w WHERE s.id = w.id
        RETURNING s.id, s.tenant_id, s.attempt, s.model, s.owner, s.request_id
    )
    INSERT INTO millrace.outbox (tenant_id, subtask_id, attempt, model, owner, priority)
    SELECT l.tenant_id, l.id, l.attempt, l.model, l.owner, q.priority
      FROM lost l JOIN millrace.requests q ON q.id = l.request_id
    ON CONFLICT DO NOTHING RETURNING subtask_id
"""
_FORGOTTEN = text(f"""
    WITH waiting AS (
        SELECT id FROM millrace.subtasks
         WHERE model = :model AND state = 'queued'
           AND queued_at < now() - make_interval(secs => :age)
           FOR UPDATE SKIP LOCKED
    ), {_PUBLISH_AGAIN}
""")
_MISSING = text(f"""
    WITH waiting AS (
        SELECT s.id FROM millrace.subtasks s
          JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS m(id, attempt)
            ON s.id = m.id AND s.attempt = m.attempt
         WHERE s.state = 'queued' FOR UPDATE OF s SKIP LOCKED
    ), {_PUBLISH_AGAIN}
""")


async def republish(connection: AsyncConnection, missing: Sequence[tuple[UUID, int]]) -> list[UUID]:
    """Queue again these (subtask, attempt) pairs, of which the broker has no message."""
    return list((await connection.execute(_MISSING, _pairs(missing))).scalars())


async def republish_forgotten(
    connection: AsyncConnection, model: str, age_seconds: float
) -> list[UUID]:
    """Queue again what was confirmed long ago although the broker's queue is empty now."""
    values = {"model": model, "age": age_seconds}
    return list((await connection.execute(_FORGOTTEN, values)).scalars())


_UNSENT = """
      FROM millrace.subtasks s JOIN millrace.requests q ON q.id = s.request_id
     WHERE s.state = 'ready' AND s.finished_at IS NULL AND NOT EXISTS (
           SELECT 1 FROM millrace.outbox o WHERE o.subtask_id = s.id AND o.attempt = s.attempt)
"""
_READY_UNSENT = text(f"SELECT s.id {_UNSENT}")
_ENQUEUE_UNSENT = text(f"""
    INSERT INTO millrace.outbox
           (tenant_id, subtask_id, attempt, model, owner, priority, available_at)
    SELECT s.tenant_id, s.id, s.attempt, s.model, s.owner, q.priority, greatest(now(), s.ready_at)
           {_UNSENT}
    ON CONFLICT DO NOTHING RETURNING subtask_id
""")


async def unsent(connection: AsyncConnection) -> list[UUID]:
    """Ready subtasks that no outbox row would ever publish. There should never be one."""
    return list((await connection.execute(_READY_UNSENT)).scalars())


async def enqueue_unsent(connection: AsyncConnection) -> list[UUID]:
    """Give ready subtasks the outbox row that they lack."""
    return list((await connection.execute(_ENQUEUE_UNSENT)).scalars())
