"""Leases: which execution works on a subtask, and until when it is believed to.

An execution claims the lease when it starts, heartbeats renew it, and whose lease is over is lost.
As of every move, who claims holds the request row (`db/subtasks.py`); who renews holds only the
subtask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import sql_list, subtasks
from db.statement import Statement
from queue_schemas.messages import RunningSubtask, Started
from queue_schemas.states import SUBTASK_MOVES, SubtaskState, sources

# A later delivery of the same attempt takes over from an earlier one; between equals the first
# claim stands until its lease is over. Whoever may claim may also end: notes and results travel on
# different queues to different replicas, so a result can be here before its claim is.
_MAY_CLAIM = "(s.state <> 'running' OR s.delivery < r.delivery OR s.lease_until < now())"
MAY_END = f"(s.execution = r.execution OR {_MAY_CLAIM})"

_CLAIMABLE = sql_list(sources(SUBTASK_MOVES, SubtaskState.RUNNING))
_CLAIM = Statement(f"""
    UPDATE millrace.subtasks s
       SET state = 'running', execution = r.execution, delivery = r.delivery, worker = r.worker,
           lease_until = now() + make_interval(secs => :lease),
           started_at = now()
      FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[]), CAST(:executions AS uuid[]),
                  CAST(:deliveries AS integer[]), CAST(:workers AS text[]))
           AS r(id, attempt, execution, delivery, worker)
     WHERE s.id = r.id AND s.attempt = r.attempt AND s.state IN ({_CLAIMABLE})
       AND {_MAY_CLAIM}
    RETURNING s.id, s.request_id, s.kind, s.model, s.delivery,
              CAST(extract(epoch FROM s.started_at - s.ready_at) AS float8)
""")


class Claimed(NamedTuple):
    """A subtask that an execution got its lease for."""

    subtask: UUID
    request: UUID
    kind: str
    model: str
    delivery: int
    """How often its message was handed out before."""
    waited_seconds: float
    """From being ready to this."""


async def claim(
    connection: AsyncConnection, starts: Sequence[Started], lease_seconds: float
) -> list[Claimed]:
    """Give executions their lease; returns the subtasks that got it."""
    values = {
        "ids": [s.subtask for s in starts],
        "attempts": [s.attempt for s in starts],
        "executions": [s.execution for s in starts],
        "deliveries": [s.delivery for s in starts],
        "workers": [s.worker for s in starts],
        "lease": lease_seconds,
    }
    return [Claimed(*row.values()) for row in await _CLAIM.run(connection, values)]


async def outrun(connection: AsyncConnection, starts: Sequence[Started]) -> list[Started]:
    """Of executions that got no lease: those that work in vain and must stop.

    An execution whose own result was applied before its Started arrived is not among them; one
    whose subtask was ended by somebody else is.
    """
    query = select(subtasks.c.id, subtasks.c.execution).where(
        subtasks.c.id.in_([start.subtask for start in starts]),
        subtasks.c.state.not_in((SubtaskState.CANCELLED, SubtaskState.DEAD)),
    )
    holders = {row.id: row.execution for row in await connection.execute(query)}
    return [start for start in starts if holders.get(start.subtask) != start.execution]


# A row that is locked is being moved by its holder; it needs no lease any more.
_RENEW = text("""
    WITH alive AS (
        SELECT s.id
          FROM millrace.subtasks s
          JOIN unnest(CAST(:ids AS uuid[]), CAST(:executions AS uuid[])) AS r(id, execution)
            ON s.id = r.id AND s.execution = r.execution AND s.state = 'running'
           FOR UPDATE OF s SKIP LOCKED
    )
    UPDATE millrace.subtasks s SET lease_until = now() + make_interval(secs => :lease)
      FROM alive WHERE s.id = alive.id
    RETURNING s.execution
""")


async def renew(
    connection: AsyncConnection, running: Sequence[RunningSubtask], lease_seconds: float
) -> set[UUID]:
    """A heartbeat named these executions: they keep their lease. Returns those that had one."""
    values = {
        "ids": [line.subtask for line in running],
        "executions": [line.execution for line in running],
        "lease": lease_seconds,
    }
    return set((await connection.execute(_RENEW, values)).scalars())


_EXPIRED = text("""
    SELECT s.id, s.request_id, s.attempt, s.losses, s.execution, s.delivery, s.worker, s.step,
           s.model
      FROM millrace.subtasks s
     WHERE s.state = 'running' AND s.lease_until < now()
     ORDER BY s.lease_until LIMIT :limit
""")


async def clock(connection: AsyncConnection) -> float:
    """The time by which this transaction judges leases, in seconds."""
    query = text("SELECT extract(epoch FROM now())::float8")
    seconds: float = (await connection.execute(query)).scalar_one()
    return seconds


@dataclass(frozen=True)
class Lost:
    """A running subtask that no heartbeat vouches for."""

    id: UUID
    request_id: UUID
    attempt: int
    losses: int
    execution: UUID
    delivery: int
    worker: str
    step: str
    model: str


async def expired(connection: AsyncConnection, limit: int) -> list[Lost]:
    """The subtasks whose lease is over, longest first."""
    rows = await connection.execute(_EXPIRED, {"limit": limit})
    return [Lost(*row) for row in rows]
