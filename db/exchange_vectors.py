"""Vectors of exchanges, for finding what the same person said before by its meaning.

Compared one by one, within one person's own: those are few enough that no index is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.drafts import as_text


@dataclass(frozen=True)
class Unembedded:
    """A conversation some of whose exchanges may have no vector; held until `until`."""

    id: UUID
    tenant: UUID
    until: datetime


@dataclass(frozen=True)
class Near:
    """An exchange whose meaning is near."""

    request: UUID
    conversation: UUID
    score: float
    """Cosine similarity."""


_TAKE = text("""
    UPDATE millrace.conversations c SET embed_at = now() + make_interval(secs => :hold)
     WHERE c.id IN (
           SELECT d.id FROM millrace.conversations d
            WHERE d.embed_at <= now()
              AND NOT EXISTS (SELECT FROM millrace.requests q
                               WHERE q.conversation_id = d.id AND q.finished_at IS NULL)
            ORDER BY d.embed_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING c.id, c.tenant_id, c.embed_at
""")


async def take(connection: AsyncConnection, limit: int, hold_seconds: float) -> list[Unembedded]:
    """Conversations to be looked at now, which nobody else then takes for so long."""
    values = {"limit": limit, "hold": hold_seconds}
    return [Unembedded(*row) for row in await connection.execute(_TAKE, values)]


_MISSING = text("""
    SELECT q.id FROM millrace.requests q
      LEFT JOIN millrace.exchange_vectors v ON v.request_id = q.id AND v.model = :model
     WHERE q.conversation_id = :conversation AND q.state = 'completed' AND v.request_id IS NULL
       AND q.question -> 'hidden' IS NULL AND q.question ->> 'task' IS NULL
     ORDER BY q.created_at DESC LIMIT :limit
""")


async def missing(
    connection: AsyncConnection, conversation: UUID, model: str, limit: int
) -> list[UUID]:
    """Requests of a conversation without a vector of this model, newest first."""
    values = {"conversation": conversation, "model": model, "limit": limit}
    return list((await connection.execute(_MISSING, values)).scalars())


_PUT = text("""
    INSERT INTO millrace.exchange_vectors
           (request_id, tenant_id, conversation_id, model, embedding)
    SELECT :request, c.tenant_id, c.id, :model, CAST(CAST(:vector AS text) AS vector)
      FROM millrace.conversations c WHERE c.id = :conversation
        FOR KEY SHARE
    ON CONFLICT (request_id) DO UPDATE
       SET model = excluded.model, embedding = excluded.embedding, created_at = now()
""")


async def put(
    connection: AsyncConnection,
    conversation: UUID,
    model: str,
    vectors: Sequence[tuple[UUID, Sequence[float]]],
) -> None:
    """Store vectors of requests of a conversation; of one that was deleted meanwhile nothing."""
    for request, vector in vectors:
        values = {"request": request, "conversation": conversation, "model": model}
        await connection.execute(_PUT, values | {"vector": as_text(vector)})


_DROP = text("DELETE FROM millrace.exchange_vectors WHERE request_id = ANY(:requests)")


async def drop(connection: AsyncConnection, requests: Sequence[UUID]) -> None:
    """Delete the vectors of these requests."""
    await connection.execute(_DROP, {"requests": list(requests)})


_DONE = text("""
    UPDATE millrace.conversations
       SET embed_at = CASE WHEN CAST(:seconds AS double precision) IS NOT NULL
                           THEN now() + make_interval(secs => :seconds) END
     WHERE id = :id AND embed_at = :until
""")


async def release(
    connection: AsyncConnection, taken: Unembedded, again_seconds: float | None
) -> None:
    """Look at it again after so long; None: all its exchanges have their vectors."""
    values = {"id": taken.id, "until": taken.until, "seconds": again_seconds}
    await connection.execute(_DONE, values)


_NEAREST = text("""
    SELECT v.request_id, v.conversation_id,
           1 - (v.embedding <=> CAST(CAST(:vector AS text) AS vector)) AS score
      FROM millrace.exchange_vectors v JOIN millrace.conversations c ON c.id = v.conversation_id
     WHERE v.tenant_id = :tenant AND c.tenant_id = :tenant AND c.end_user = :end_user
       AND (c.end_user <> '' OR c.id = :conversation)
       AND v.model = :model AND vector_dims(v.embedding) = :dimension
     ORDER BY score DESC LIMIT :limit
""")


async def nearest(
    connection: AsyncConnection,
    of: tuple[UUID, str | None, UUID],
    model: str,
    vector: Sequence[float],
    limit: int,
) -> list[Near]:
    """The nearest exchanges of (tenant, end user, conversation), best first.

    All conversations of the end user are looked at; of nobody in particular this one alone, since
    the others may be somebody else's.
    """
    tenant, end_user, conversation = of
    values = {
        "tenant": tenant,
        "end_user": end_user or "",
        "conversation": conversation,
        "model": model,
        "vector": as_text(vector),
        "dimension": len(vector),
        "limit": limit,
    }
    return [Near(*row) for row in await connection.execute(_NEAREST, values)]
