"""Rated chats, for training models elsewhere: only of tenants who let that happen."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import tenants


@dataclass(frozen=True)
class RatedRequest:
    """A request that was answered and that people said something of."""

    id: UUID
    tenant: str
    created_at: datetime
    question: Mapping[str, Any]
    plan: Mapping[str, Any]
    answer: str
    judgements: Sequence[Mapping[str, Any]]
    """kind, rater, subject, score, rating, reason, comment, correction; oldest first."""
    steps: Sequence[Mapping[str, Any]]
    """Of those that succeeded: step, kind, model, text."""
    same: bytes
    """Of requests with the same messages it is the same; they follow each other."""


async def consents(connection: AsyncConnection) -> list[tuple[str, bool]]:
    """Every tenant, and whether its chats may be used."""
    query = select(tenants.c.name, tenants.c.training).order_by(tenants.c.name)
    return [(row.name, row.training) for row in await connection.execute(query)]


async def set_consent(connection: AsyncConnection, tenant: str, allowed: bool) -> bool:
    """Say whether a tenant's chats may be used; False if there is no such tenant."""
    query = update(tenants).filter_by(name=tenant).values(training=allowed)
    return (await connection.execute(query)).rowcount == 1


# Left out is what its client kept back or deleted, what was asked after such a thing, and what was
# asked in a conversation that has such a thing or was deleted: its text is in the prompt. So may
# be that of any chat where something was summed up or recalled; where it was erased since, the
# steps have no prompts any more.
_RATED = text("""
    SELECT q.id, t.name AS tenant, q.created_at, q.question, q.plan, q.answer, said.judgements,
           made.steps, decode(md5(q.tenant_id || (q.question -> 'messages')::text), 'hex') AS same
      FROM millrace.requests q
      JOIN millrace.tenants t ON t.id = q.tenant_id AND t.training
     CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object(
                   'kind', j.kind, 'rater', j.rater, 'subject', j.subject, 'score', j.score,
                   'rating', j.rating, 'reason', j.reason, 'comment', j.comment,
                   'correction', j.correction) ORDER BY j.updated_at, j.id) AS judgements,
               bool_or(j.kind IN ('human', 'retry')) AS rated
          FROM millrace.judgements j WHERE j.request_id = q.id) said
     CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object(
                   'step', s.step, 'kind', s.kind, 'model', s.model, 'text', s.text)
                   ORDER BY s.position) AS steps,
               bool_or(s.kind = 'task') AS is_task
          FROM millrace.subtasks s WHERE s.request_id = q.id AND s.state = 'succeeded') made
     WHERE q.state = 'completed' AND q.finish_reason = 'stop' AND q.error IS NULL
       AND said.rated AND NOT made.is_task
       AND (CAST(:tenant AS text) IS NULL OR t.name = :tenant)
       AND q.created_at > now() - make_interval(secs => :since)
       AND NOT millrace.kept_back(q.question)
       AND (q.conversation_id IS NOT NULL
            OR coalesce(q.question -> 'remembered', 'null') = 'null')
       AND coalesce(q.question -> 'remembered' ->> 'note', '') = ''
       AND NOT jsonb_path_exists(q.plan, '$.steps[*] ? (@.messages.size() == 0)')
       AND NOT EXISTS (
           SELECT FROM millrace.requests o
            WHERE o.conversation_id = q.conversation_id AND millrace.kept_back(o.question))
       AND NOT EXISTS (
           WITH RECURSIVE before AS (
               SELECT p.previous_id, p.question FROM millrace.requests p
                WHERE p.id = q.previous_id
               UNION ALL
               SELECT p.previous_id, p.question FROM millrace.requests p
                 JOIN before b ON p.id = b.previous_id)
           SELECT FROM before b WHERE millrace.kept_back(b.question))
     ORDER BY same, q.created_at, q.id
""").columns(question=JSONB, plan=JSONB, judgements=JSONB, steps=JSONB)


async def rated(
    connection: AsyncConnection, tenant: str | None, since_seconds: float
) -> AsyncIterator[RatedRequest]:
    """What was rated of requests that were asked in the last so many seconds."""
    values = {"tenant": tenant, "since": since_seconds}
    async with connection.stream(_RATED, values) as rows:
        async for row in rows.mappings():
            yield RatedRequest(**row)
