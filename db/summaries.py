"""Summaries of conversations: which are due, who writes them, and what they say.

Across all tenants, for the master's own loop. Guarded: of several replicas one has its way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.conversation_table import conversations


@dataclass(frozen=True)
class Due:
    """A conversation whose older exchanges want a summary."""

    id: UUID
    tenant: UUID
    end_user: str | None
    summary: Mapping[str, Any] | None
    since: datetime
    """When it became due."""


_DUE = text("""
    SELECT c.id, c.tenant_id, nullif(c.end_user, ''), c.summary, c.summarise_at
      FROM millrace.conversations c
     WHERE c.summarise_at <= now() AND c.summarising IS NULL
       AND NOT EXISTS (SELECT FROM millrace.requests q
                        WHERE q.conversation_id = c.id AND q.finished_at IS NULL
                          AND q.question ->> 'task' IS NULL)
     ORDER BY c.summarise_at LIMIT :limit
""").columns(summary=conversations.c.summary.type)


async def due(connection: AsyncConnection, limit: int) -> list[Due]:
    """Conversations to be summarised now: nobody waits for an answer in them."""
    return [Due(*row) for row in await connection.execute(_DUE, {"limit": limit})]


_BEGIN = text("""
    UPDATE millrace.conversations
       SET summarising = jsonb_build_object(
               'request', CAST(:request AS text), 'until', CAST(:until AS text),
               'exchanges', CAST(:exchanges AS integer))
     WHERE id = :id AND summarise_at = :since AND summarising IS NULL
""")


async def begin(
    connection: AsyncConnection, of: Due, request: UUID, until: datetime, exchanges: int
) -> bool:
    """That request writes the summary up to then; False if somebody was faster."""
    values = {
        "id": of.id,
        "since": of.since,
        "request": str(request),
        "until": until.isoformat(),
        "exchanges": exchanges,
    }
    return (await connection.execute(_BEGIN, values)).rowcount == 1


_SETTLE = text("""
    UPDATE millrace.conversations
       SET summarise_at = CASE WHEN CAST(:seconds AS double precision) IS NOT NULL
                               THEN now() + make_interval(secs => :seconds) END
     WHERE id = :id AND summarise_at = :since AND summarising IS NULL
""")


async def put_off(connection: AsyncConnection, of: Due, seconds: float | None) -> None:
    """Look again in so many seconds; None: nothing is to be summarised."""
    values = {"id": of.id, "since": of.since, "seconds": seconds}
    await connection.execute(_SETTLE, values)


_TAKE = text("""
    UPDATE millrace.conversations c
       SET summary = CASE WHEN q.state = 'completed' AND btrim(q.answer) <> ''
                          THEN c.summarising || jsonb_build_object('text', btrim(q.answer))
                          ELSE c.summary END,
           summarise_at = CASE WHEN q.state = 'completed' AND btrim(q.answer) <> '' THEN NULL
                               ELSE now() + make_interval(secs => :again) END,
           summarising = NULL
      FROM millrace.requests q
     WHERE c.summarise_at IS NOT NULL AND c.summarising IS NOT NULL
       AND q.id = CAST(c.summarising ->> 'request' AS uuid) AND q.finished_at IS NOT NULL
    RETURNING c.id, q.state
""")


async def take(connection: AsyncConnection, again_seconds: float) -> list[tuple[UUID, str]]:
    """Put the summaries that were written into their conversations: (conversation, state).

    One that failed is due again after so many seconds; until then the older one holds.
    """
    rows = await connection.execute(_TAKE, {"again": again_seconds})
    return [(row[0], row[1]) for row in rows]


_REQUEST_OF = text("""
    SELECT id FROM millrace.requests WHERE tenant_id = :tenant AND idempotency_key = :key
""")


async def request_named(connection: AsyncConnection, tenant: UUID, key: str) -> UUID | None:
    """The request that somebody made under this key, whatever became of it."""
    found: UUID | None = await connection.scalar(_REQUEST_OF, {"tenant": tenant, "key": key})
    return found
