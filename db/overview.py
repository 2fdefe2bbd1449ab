"""What a tenant's last hour was like, and what of it is open: for people who look at it all day.

Both are cheap with many requests: what is open has an index of its own, and of an hour that was
busy the percentiles are those of its newest requests.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MINUTES = 60
_MOST_MEASURED = 1000
_LATE_SECONDS = 1800.0
"""By which a request may outlive its deadline, say in an outage, and still be counted."""


@dataclass(frozen=True)
class Minute:
    """Requests that ended in one minute."""

    completed: int = 0
    failed: int = 0
    """Also those that took too long."""
    cancelled: int = 0


@dataclass(frozen=True)
class LastHour:
    """Of one tenant. Seconds are None where nothing was measured."""

    minutes: tuple[Minute, ...] = (Minute(),) * MINUTES
    """Oldest first."""
    first_text_p50: float | None = None
    first_text_p95: float | None = None
    total_p50: float | None = None
    total_p95: float | None = None

    @property
    def completed(self) -> int:
        """Requests with an answer."""
        return sum(minute.completed for minute in self.minutes)

    @property
    def failed(self) -> int:
        """Requests without one, not for their client's sake."""
        return sum(minute.failed for minute in self.minutes)

    @property
    def cancelled(self) -> int:
        """Requests whose client did not want it any more."""
        return sum(minute.cancelled for minute in self.minutes)


# The index is on their beginning; `reach` says how long ago those began that ended lately.
_MINUTES = text("""
    SELECT floor(extract(epoch FROM now() - finished_at) / 60)::int AS ago,
           count(*) FILTER (WHERE state = 'completed'),
           count(*) FILTER (WHERE state IN ('failed', 'expired')),
           count(*) FILTER (WHERE state = 'cancelled')
      FROM millrace.requests
     WHERE tenant_id = :tenant AND created_at > now() - make_interval(secs => :reach)
       AND finished_at > now() - interval '60 minutes'
     GROUP BY 1
""")
# As clients see it: what was merged or chosen comes after what it was made of, and of sections the
# first one comes first. A choice is made when every answer and every judgement is there.
_MEASURED = text("""
    WITH newest AS (
        SELECT id, created_at, finished_at FROM millrace.requests
         WHERE tenant_id = :tenant AND created_at > now() - make_interval(secs => :reach)
           AND finished_at > now() - interval '60 minutes' AND state = 'completed'
         ORDER BY created_at DESC LIMIT :most
    ), measured AS (
        SELECT extract(epoch FROM n.finished_at - n.created_at)::float8 AS total,
               extract(epoch FROM coalesce(merged, sections[1], greatest(candidate, judged))
                       - n.created_at)::float8 AS first
          FROM newest n, LATERAL (
            SELECT min(began) FILTER (WHERE kind = 'synthesis') AS merged,
                   array_agg(began ORDER BY position)
                       FILTER (WHERE kind IN ('answer', 'task') AND began IS NOT NULL) AS sections,
                   max(began) FILTER (WHERE kind = 'candidate') AS candidate,
                   max(finished_at) FILTER (WHERE kind = 'judge' AND state = 'succeeded') AS judged
              FROM (SELECT s.*, started_at + make_interval(secs => first_token_seconds) AS began
                      FROM millrace.subtasks s WHERE s.request_id = n.id) steps) shown
    )
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY first),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY first),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY total),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY total)
      FROM measured
""")


async def last_hour(connection: AsyncConnection, tenant: UUID, longest_seconds: float) -> LastHour:
    """What ended in the last sixty minutes, of requests that have at most so long."""
    minutes = [Minute()] * MINUTES
    about = {"tenant": tenant, "reach": MINUTES * 60 + longest_seconds + _LATE_SECONDS}
    for ago, *counts in await connection.execute(_MINUTES, about):
        minutes[MINUTES - 1 - min(max(ago, 0), MINUTES - 1)] = Minute(*counts)
    measured = await connection.execute(_MEASURED, {**about, "most": _MOST_MEASURED})
    return LastHour(tuple(minutes), *measured.one())


@dataclass(frozen=True)
class Open:
    """What of a tenant's has not ended."""

    requests: int = 0
    waiting: int = 0
    """Of them, those that no worker has begun."""
    subtasks: int = 0
    oldest_seconds: float | None = None
    """Since the oldest of these requests came."""
    dead: int = 0
    """Subtasks that wait for a person's decision."""


_OPEN = text("""
    SELECT q.requests, q.waiting, s.subtasks, q.oldest, d.dead
      FROM (SELECT count(*) AS requests, count(*) FILTER (WHERE state = 'accepted') AS waiting,
                   extract(epoch FROM now() - min(created_at))::float8 AS oldest
              FROM millrace.requests WHERE tenant_id = :tenant AND finished_at IS NULL) q,
           (SELECT count(*) AS subtasks
              FROM millrace.subtasks WHERE tenant_id = :tenant AND finished_at IS NULL) s,
           (SELECT count(*) AS dead
              FROM millrace.subtasks s
             WHERE s.tenant_id = :tenant AND s.state = 'dead' AND s.seen_at IS NULL
               AND NOT EXISTS (SELECT FROM millrace.requests r
                                WHERE r.redriven_from = s.request_id)) d
""")


async def still_open(connection: AsyncConnection, tenant: UUID) -> Open:
    """What is open now."""
    row: Any = (await connection.execute(_OPEN, {"tenant": tenant})).one()
    return Open(*row)
