"""Subtasks: every move is a conditional update whose guard comes from the move table.

Who moves a subtask holds its request row (`requests.lock`), taken in the order of ids; so two
replicas cannot wait for each other, and the last two subtasks of a request still make one ending.
Two hold only the row itself, because they move nothing: what was shown (`db/shown.py`), and when a
message was put on its queue again (`db/outbox.py`).

A call that moves no row is not an error: somebody was faster, and the caller says what that means.
Batches travel as arrays, so that a hundred results cost one statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.leases import MAY_END
from db.models import sql_list, subtasks
from db.statement import Statement
from queue_schemas.messages import Completed
from queue_schemas.states import SUBTASK_MOVES, SubtaskState, sources


def _from(target: SubtaskState) -> str:
    return sql_list(sources(SUBTASK_MOVES, target))


@dataclass(frozen=True)
class StoredSubtask:
    """What the master decides by. Texts are loaded apart, and only where they are needed."""

    id: UUID
    request: UUID
    step: str
    kind: str
    model: str
    depends_on: Sequence[str]
    state: SubtaskState
    attempt: int
    losses: int
    execution: UUID | None
    ready_seconds: float | None = None
    """Since it is ready, by the clock of this transaction; below zero in a pause before its next
    try, and None of what is blocked."""
    ended_seconds: float | None = None
    """Since it ended, by the same clock; None of what is open."""


_OF_REQUESTS = Statement("""
    SELECT id, request_id AS request, step, kind, model, depends_on, state, attempt, losses,
           execution, CAST(extract(epoch FROM now() - ready_at) AS float8) AS ready_seconds,
           CAST(extract(epoch FROM now() - finished_at) AS float8) AS ended_seconds
      FROM millrace.subtasks WHERE request_id = ANY(:requests) ORDER BY position
""")


async def of_requests(
    connection: AsyncConnection, requests: Sequence[UUID]
) -> dict[UUID, list[StoredSubtask]]:
    """All subtasks of these requests, by request, in the order they were stored."""
    found: dict[UUID, list[StoredSubtask]] = {request: [] for request in requests}
    for row in await _OF_REQUESTS.run(connection, {"requests": list(requests)}):
        subtask = StoredSubtask(**{**row, "state": SubtaskState(row["state"])})
        found[subtask.request].append(subtask)
    return found


async def texts(connection: AsyncConnection, request: UUID) -> dict[str, str | None]:
    """The text of every step of a request that has one, by step."""
    query = select(subtasks.c.step, subtasks.c.text).where(subtasks.c.request_id == request)
    return {row.step: row.text for row in await connection.execute(query)}


async def details(connection: AsyncConnection, request: UUID) -> list[dict[str, Any]]:
    """Whole rows of a request's subtasks, for its record."""
    query = select(subtasks).where(subtasks.c.request_id == request).order_by(subtasks.c.position)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


_MARK_QUEUED = Statement(f"""
    UPDATE millrace.subtasks s SET state = 'queued', queued_at = now()
      FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS c(id, attempt)
     WHERE s.id = c.id AND s.attempt = c.attempt AND s.state IN ({_from(SubtaskState.QUEUED)})
""")


async def mark_queued(connection: AsyncConnection, sent: Sequence[tuple[UUID, int]]) -> None:
    """The broker confirmed these (subtask, attempt) pairs."""
    values = {"ids": [pair[0] for pair in sent], "attempts": [pair[1] for pair in sent]}
    await _MARK_QUEUED.run(connection, values)


# A result may arrive before its Started was written; the engine's time then says when it began.
# The outbox row is still there when whoever published it died before it heard the confirm.
_SUCCEED = Statement(f"""
    WITH moved AS (
        UPDATE millrace.subtasks s
           SET state = 'succeeded', text = r.text, reasoning = nullif(r.reasoning, ''),
               tool_calls = r.tool_calls, logprobs = r.logprobs, finish_reason = r.finish_reason,
               execution = r.execution, delivery = r.delivery, worker = r.worker,
               first_token_seconds = r.first_token,
               started_at = coalesce(s.started_at, greatest(
                   s.ready_at, now() - make_interval(secs => r.engine_seconds))),
               lease_until = NULL, finished_at = now()
          FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[]),
                      CAST(:executions AS uuid[]), CAST(:deliveries AS integer[]),
                      CAST(:workers AS text[]), CAST(:texts AS text[]),
                      CAST(:reasonings AS text[]), CAST(:tool_calls AS jsonb[]),
                      CAST(:logprobs AS jsonb[]), CAST(:finish_reasons AS text[]),
                      CAST(:first_tokens AS double precision[]),
                      CAST(:engine_seconds AS double precision[]))
               AS r(id, attempt, execution, delivery, worker, text, reasoning, tool_calls, logprobs,
                    finish_reason, first_token, engine_seconds)
         WHERE s.id = r.id AND s.attempt = r.attempt
           AND s.state IN ({_from(SubtaskState.SUCCEEDED)}) AND {MAY_END}
        RETURNING s.id
    ), forgotten AS (
        DELETE FROM millrace.outbox o USING moved m WHERE o.subtask_id = m.id
    )
    SELECT id FROM moved
""")


async def succeed(connection: AsyncConnection, results: Sequence[Completed]) -> set[UUID]:
    """Apply results; returns the subtasks that moved. The others were superseded or ended."""
    values = {
        "ids": [r.subtask for r in results],
        "attempts": [r.attempt for r in results],
        "executions": [r.execution for r in results],
        "deliveries": [r.delivery for r in results],
        "workers": [r.worker for r in results],
        "texts": [r.text for r in results],
        "reasonings": [r.reasoning for r in results],
        "tool_calls": [_json(r.tool_calls or None) for r in results],
        "logprobs": [_json(r.logprobs) for r in results],
        "finish_reasons": [r.finish_reason for r in results],
        "first_tokens": [r.usage.first_token_seconds for r in results],
        "engine_seconds": [r.usage.engine_seconds for r in results],
    }
    return {row["id"] for row in await _SUCCEED.run(connection, values)}


def _json(value: object) -> str | None:
    return None if value is None else to_json(value).decode()


# Of an execution that ended its attempt; of nobody, when the master itself did. Whom the sweep
# thinks lost may have had a heartbeat written since it looked.
_ENDER = """(SELECT CAST(:execution AS uuid) AS execution, CAST(:delivery AS integer) AS delivery)
           AS r"""
_ENDER_MAY = f"""(r.execution IS NULL OR {MAY_END})
       AND (NOT CAST(:lost AS boolean) OR s.lease_until < now())"""
_AGAIN = text(f"""
    UPDATE millrace.subtasks s
       SET state = 'ready', attempt = s.attempt + 1,
           losses = s.losses + CAST(:lost AS boolean)::integer,
           shown = coalesce(CAST(:shown AS text), s.shown),
           model = coalesce(CAST(:model AS text), s.model),
           execution = NULL, delivery = NULL, lease_until = NULL, queued_at = NULL,
           started_at = NULL, ready_at = now() + make_interval(secs => :delay),
           error = CAST(:error AS jsonb)
      FROM {_ENDER}
     WHERE s.id = :id AND s.attempt = :attempt AND s.state IN ({_from(SubtaskState.READY)})
       AND {_ENDER_MAY}
    RETURNING s.id
""")
_FORGET_OUTBOX = text("DELETE FROM millrace.outbox WHERE subtask_id = :id AND attempt = :attempt")


async def again(  # noqa: PLR0913 - an attempt has as many sides as it has
    connection: AsyncConnection,
    subtask: UUID,
    attempt: int,
    *,
    execution: UUID | None = None,
    delivery: int = 0,
    delay_seconds: float = 0.0,
    error: str | None = None,
    lost: bool = False,
    shown: str | None = None,
    model: str | None = None,
) -> bool:
    """Prepare the next attempt, with its outbox row. False: somebody was faster.

    `lost`: because the lease is over. `model`: who is to answer from now on, if another one.
    With a delay it is ready only then: until its time nobody is behind with it.
    """
    values = {
        "id": subtask,
        "attempt": attempt,
        "execution": execution,
        "delivery": delivery,
        "error": error,
        "lost": lost,
        "shown": shown,
        "model": model,
        "delay": delay_seconds,
    }
    row = (await connection.execute(_AGAIN, values)).one_or_none()
    if row is None:
        return False
    await connection.execute(_FORGET_OUTBOX, {"id": subtask, "attempt": attempt})
    await _enqueue(connection, subtask)
    return True


_ENQUEUE = text("""
    INSERT INTO millrace.outbox
           (tenant_id, subtask_id, attempt, model, owner, priority, available_at)
    SELECT s.tenant_id, s.id, s.attempt, s.model, s.owner, q.priority, s.ready_at
      FROM millrace.subtasks s JOIN millrace.requests q ON q.id = s.request_id
     WHERE s.id = :subtask
    ON CONFLICT DO NOTHING
""")


async def _enqueue(connection: AsyncConnection, subtask: UUID) -> None:
    """An outbox row for the attempt that the subtask is at, due when the subtask is ready."""
    await connection.execute(_ENQUEUE, {"subtask": subtask})


_UNBLOCK = text("""
    UPDATE millrace.subtasks SET state = 'ready', ready_at = now()
     WHERE id = :id AND state = 'blocked' RETURNING id
""")


async def unblock(connection: AsyncConnection, subtask: UUID) -> bool:
    """Make a blocked subtask ready, with its outbox row."""
    row = (await connection.execute(_UNBLOCK, {"id": subtask})).one_or_none()
    if row is None:
        return False
    await _enqueue(connection, subtask)
    return True


_END = {
    state: text(f"""
        UPDATE millrace.subtasks s
           SET state = '{state}', error = CAST(:error AS jsonb), lease_until = NULL,
               text = coalesce(nullif(CAST(:text AS text), ''), nullif(s.shown, '')),
               finished_at = now(),
               execution = coalesce(r.execution, s.execution),
               delivery = CASE WHEN r.execution IS NULL THEN s.delivery ELSE r.delivery END
          FROM {_ENDER}
         WHERE s.id = :id AND s.attempt = :attempt AND s.state IN ({_from(state)})
           AND {_ENDER_MAY}
    """)
    for state in (SubtaskState.FAILED, SubtaskState.DEAD, SubtaskState.SKIPPED)
}


async def end(  # noqa: PLR0913 - as of `again`
    connection: AsyncConnection,
    subtask: UUID,
    attempt: int,
    state: SubtaskState,
    *,
    error: str | None,
    execution: UUID | None = None,
    delivery: int = 0,
    lost: bool = False,
    text: str = "",
) -> bool:
    """End a subtask without a whole text: failed, dead or skipped. `error` is JSON.

    `lost`: because the lease is over.
    """
    values = {
        "id": subtask,
        "attempt": attempt,
        "error": error,
        "execution": execution,
        "delivery": delivery,
        "lost": lost,
        "text": text,
    }
    moved = (await connection.execute(_END[state], values)).rowcount == 1
    if moved:
        await connection.execute(_FORGET_OUTBOX, {"id": subtask, "attempt": attempt})
    return moved


_LATE = text("""
    SELECT id, request_id AS request, step, kind, model, depends_on, state, attempt, losses,
           execution
      FROM millrace.subtasks s
     WHERE deadline_at < now() AND state IN ('ready', 'queued', 'running')
       AND EXISTS (SELECT FROM millrace.subtasks o
                    WHERE o.request_id = s.request_id AND o.kind = s.kind
                      AND o.state = 'succeeded')
     ORDER BY deadline_at LIMIT :limit
""")


async def late(connection: AsyncConnection, limit: int) -> list[StoredSubtask]:
    """The open subtasks whose own deadline is over, and in whose place another has answered."""
    rows = (await connection.execute(_LATE, {"limit": limit})).mappings()
    return [StoredSubtask(**{**row, "state": SubtaskState(row["state"])}) for row in rows]
