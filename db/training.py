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


# A chat is a conversation, or a request outside of all. What is said in it has words of the chats
# that it goes on from, and of those that were recalled in it.
_MEMBER = "(p.conversation_id = c.chat OR p.id = c.chat AND p.conversation_id IS NULL)"
_SOURCES = f"""
    SELECT (SELECT coalesce(s.conversation_id, s.id) FROM millrace.requests s
             WHERE s.id = came.id) AS chat
      FROM millrace.requests p
     CROSS JOIN LATERAL (
        SELECT p.previous_id AS id
         UNION ALL
        SELECT CAST(r ->> 'request' AS uuid)
          FROM jsonb_path_query(p.question, '$.remembered.recalled[*]') r) came
     WHERE {_MEMBER} AND came.id IS NOT NULL
"""
# With whether it has something that its client kept back or deleted, or whose words were erased
# since, so that the steps have no prompts any more.
_CHATS = text(f"""
    WITH RECURSIVE heard AS (
        SELECT unnest(CAST(:chats AS uuid[])) AS chat
         UNION
        SELECT o.chat FROM heard c CROSS JOIN LATERAL ({_SOURCES}) o
    )
    SELECT c.chat, ARRAY({_SOURCES}) AS sources,
           EXISTS (SELECT FROM millrace.requests p
                    WHERE {_MEMBER}
                      AND (millrace.kept_back(p.question)
                           OR jsonb_path_exists(p.plan, '$.steps[*] ? (@.messages.size() == 0)')))
           AS is_kept
      FROM heard c
""")
_CANDIDATES = text("""
    SELECT q.id, coalesce(q.conversation_id, q.id) AS chat
      FROM millrace.requests q
      JOIN millrace.tenants t ON t.id = q.tenant_id AND t.training
     WHERE q.state = 'completed' AND q.finish_reason = 'stop' AND q.error IS NULL
       AND (CAST(:tenant AS text) IS NULL OR t.name = :tenant)
       AND q.created_at > now() - make_interval(secs => :since)
       AND EXISTS (SELECT FROM millrace.judgements j
                    WHERE j.request_id = q.id AND j.kind IN ('human', 'retry'))
""")
# Left out as well is what was summed up or recalled for, or whose conversation was deleted.
_RATED = text("""
    SELECT q.id, t.name AS tenant, q.created_at, q.question, q.plan, q.answer, said.judgements,
           made.steps, decode(md5(q.tenant_id || (q.question -> 'messages')::text), 'hex') AS same
      FROM millrace.requests q
      JOIN millrace.tenants t ON t.id = q.tenant_id AND t.training
     CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object(
                   'kind', j.kind, 'rater', j.rater, 'subject', j.subject, 'score', j.score,
                   'rating', j.rating, 'reason', j.reason, 'comment', j.comment,
                   'correction', j.correction) ORDER BY j.updated_at, j.id) AS judgements
          FROM millrace.judgements j WHERE j.request_id = q.id) said
     CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object(
                   'step', s.step, 'kind', s.kind, 'model', s.model, 'text', s.text)
                   ORDER BY s.position) AS steps,
               bool_or(s.kind = 'task') AS is_task
          FROM millrace.subtasks s WHERE s.request_id = q.id AND s.state = 'succeeded') made
     WHERE q.id = ANY(:ids) AND NOT made.is_task AND NOT millrace.kept_back(q.question)
       AND (q.conversation_id IS NOT NULL
            OR coalesce(q.question -> 'remembered', 'null') = 'null')
       AND coalesce(q.question -> 'remembered' ->> 'note', '') = ''
     ORDER BY same, q.created_at, q.id
""").columns(question=JSONB, plan=JSONB, judgements=JSONB, steps=JSONB)


async def rated(
    connection: AsyncConnection, tenant: str | None, since_seconds: float
) -> AsyncIterator[RatedRequest]:
    """What was rated of requests that were asked in the last so many seconds."""
    values = {"tenant": tenant, "since": since_seconds}
    candidates = [tuple(row) for row in await connection.execute(_CANDIDATES, values)]
    chats = list({chat for _, chat in candidates})
    heard = [tuple(row) for row in await connection.execute(_CHATS, {"chats": chats})]
    kept = _spread(
        {chat for chat, _, is_kept in heard if is_kept},
        {chat: sources for chat, sources, _ in heard},
    )
    ids = [id_ for id_, chat in candidates if chat not in kept]
    async with connection.stream(_RATED, {"ids": ids}) as rows:
        async for row in rows.mappings():
            yield RatedRequest(**row)


def _spread(kept: set[UUID], sources: Mapping[UUID, Sequence[UUID]]) -> set[UUID]:
    """These chats, and all that have words of them, directly or not. Pure."""
    heard_by: dict[UUID, list[UUID]] = {}
    for chat, heard in sources.items():
        for source in heard:
            heard_by.setdefault(source, []).append(chat)
    found, to_do = set(kept), list(kept)
    while to_do:
        new = [chat for chat in heard_by.get(to_do.pop(), ()) if chat not in found]
        found.update(new)
        to_do += new
    return found
