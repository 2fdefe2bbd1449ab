"""What people said of each model's answers, by kind of work: what the choice of models rests on.

Counted are people's scores, and weakly that somebody had an answer made again. What models say of
models does not count, and neither does that a client did not wait: it may have had enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.statement import Statement

SINCE_SECONDS = 90 * 86_400.0
_MOST_OF_A_RATER = 50
"""Of the newest judgements, so that nobody pushes those of others out of sight."""
_MOST = 2_000
"""Judgements that are looked at: each has its request's plan read."""
_RETRY_WEIGHT = 0.25
"""Of a vote: an answer is made again for many reasons."""


@dataclass(frozen=True)
class Votes:
    """What was said of a model's answers of one kind."""

    work: str
    model: str
    votes: float
    """No rater counts more than a bound."""
    good: float
    """The sum of the scores."""
    raters: int


@dataclass(frozen=True)
class Evidence:
    """All that counts for a tenant."""

    votes: Sequence[Votes]
    resets: dict[str, datetime]
    """Since when it counts, by kind of work; those that were never reset are missing."""


# Judgements of the whole answer are shared out among the steps whose texts it was made of. A
# person who rated an answer and had it made again has said what they think of it. Who asked has the
# one vote on an answer; where nobody is known to have asked, all who say something share one vote,
# and are one rater.
_VOTES = Statement(f"""
    WITH newest AS (
        SELECT j.request_id, 'user:' || coalesce(q.end_user, '') AS rater, j.subject, j.kind,
               j.score, j.updated_at, row_number() OVER (
                   PARTITION BY coalesce(q.end_user, '') ORDER BY j.updated_at DESC) AS place
          FROM millrace.judgements j
          JOIN millrace.requests q ON q.id = j.request_id AND q.tenant_id = j.tenant_id
         WHERE j.tenant_id = :tenant AND j.kind IN ('human', 'retry')
           AND (coalesce(q.end_user, '') = '' OR j.rater = 'user:' || q.end_user)
           AND (j.kind = 'retry' OR j.score IS NOT NULL)
           AND j.updated_at > now() - make_interval(secs => :since)
           AND NOT (j.kind = 'retry' AND EXISTS (
               SELECT FROM millrace.judgements h
                WHERE h.request_id = j.request_id AND h.rater = j.rater AND h.kind = 'human'
                  AND h.subject = '' AND h.score IS NOT NULL))
    ), said AS (
        SELECT * FROM newest WHERE place <= {_MOST_OF_A_RATER}
         ORDER BY updated_at DESC LIMIT {_MOST}
    ), steps AS (
        SELECT q.id AS request_id, p.step ->> 'key' AS key, p.step ->> 'work' AS work,
               coalesce(q.plan ->> 'chosen', '') IN ('', p.step ->> 'key') AS shown
          FROM millrace.requests q, jsonb_array_elements(q.plan -> 'steps') AS p(step)
         WHERE q.id IN (SELECT request_id FROM said) AND q.tenant_id = :tenant
           AND p.step ->> 'work' IS NOT NULL
    ), votes AS (
        SELECT v.rater, t.work, s.model, coalesce(v.score, 0.0) AS score,
               CAST(CASE v.kind WHEN 'retry' THEN {_RETRY_WEIGHT} ELSE 1.0 END / count(*)
                    OVER (PARTITION BY v.request_id, v.rater, v.subject, v.kind)
                    AS double precision) AS weight,
               v.updated_at
          FROM said v
          JOIN steps t ON t.request_id = v.request_id
           AND CASE v.subject WHEN '' THEN t.shown ELSE t.key = v.subject END
          JOIN millrace.subtasks s
            ON s.request_id = v.request_id AND s.step = t.key AND s.state = 'succeeded'
    ), raters AS (
        SELECT v.work, v.model, sum(v.weight * v.score) / sum(v.weight) AS mean,
               least(sum(v.weight), :most_of_a_rater) AS weight
          FROM votes v
          LEFT JOIN millrace.routing_resets r ON r.tenant_id = :tenant AND r.work = v.work
         WHERE r.reset_at IS NULL OR v.updated_at > r.reset_at
         GROUP BY v.work, v.model, v.rater
    )
    SELECT work, model, sum(weight) AS votes, sum(weight * mean) AS good,
           CAST(count(*) AS integer) AS raters
      FROM raters GROUP BY work, model ORDER BY work, model
""")
_RESETS = text("SELECT work, reset_at FROM millrace.routing_resets WHERE tenant_id = :tenant")
_RESET = text("""
    INSERT INTO millrace.routing_resets (tenant_id, work)
    SELECT CAST(:tenant AS uuid), unnest(CAST(:works AS text[]))
    ON CONFLICT (tenant_id, work) DO UPDATE SET reset_at = excluded.reset_at
""")


_STAMP = text("""
    SELECT count(*), max(updated_at), (
           SELECT max(reset_at) FROM millrace.routing_resets WHERE tenant_id = :tenant)
      FROM millrace.judgements WHERE tenant_id = :tenant AND kind IN ('human', 'retry')
""")


async def stamp(connection: AsyncConnection, tenant: UUID) -> tuple[object, ...]:
    """Another one when something was said, changed, taken back or reset; costs little."""
    return tuple((await connection.execute(_STAMP, {"tenant": tenant})).one())


async def of_tenant(connection: AsyncConnection, tenant: UUID, most_of_a_rater: float) -> Evidence:
    """What counts for a tenant. A rater counts at most so much for a kind of work and a model."""
    values = {"tenant": tenant, "since": SINCE_SECONDS, "most_of_a_rater": most_of_a_rater}
    votes = [Votes(**row) for row in await _VOTES.run(connection, values)]
    resets = (await connection.execute(_RESETS, {"tenant": tenant})).all()
    return Evidence(votes, {row.work: row.reset_at for row in resets})


async def reset(connection: AsyncConnection, tenant: UUID, works: Sequence[str]) -> None:
    """Forget what was said so far of these kinds of work. Wants `tenancy.as_tenant`."""
    await connection.execute(_RESET, {"tenant": tenant, "works": list(works)})
