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

MOST_FAILURES = 5


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


def note(until: datetime, exchanges: int) -> dict[str, Any]:
    """What a request that writes a summary knows of it: it is stored as its `response`.

    There, since whoever finds the request again may find more exchanges than it was asked about.
    """
    return {"summary": {"until": until.isoformat(), "exchanges": exchanges}}


_BEGIN = text("""
    UPDATE millrace.conversations c
       SET summarising = (q.question #> '{response,summary}')
                         || jsonb_build_object('request', CAST(q.id AS text))
      FROM millrace.requests q
     WHERE c.id = :id AND c.summarise_at = :since AND c.summarising IS NULL
       AND q.id = :request AND jsonb_typeof(q.question #> '{response,summary}') = 'object'
""")


async def begin(connection: AsyncConnection, of: Due, request: UUID) -> bool:
    """That request, with its note, writes the summary; False if somebody was faster."""
    values = {"id": of.id, "since": of.since, "request": request}
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


_FAILED = f"""
           summarise_at = CASE WHEN c.summary_failures + 1 < {MOST_FAILURES}
                               THEN now() + make_interval(secs => :again) END,
           summary_failures = c.summary_failures + 1, summarising = NULL
"""
_WRITTEN = """
      FROM millrace.requests q
     WHERE c.summarise_at IS NOT NULL AND c.summarising IS NOT NULL
       AND q.id = CAST(c.summarising ->> 'request' AS uuid) AND q.finished_at IS NOT NULL
       AND (q.state = 'completed' AND btrim(q.answer) <> '')
"""
_TAKE = text(f"""
    UPDATE millrace.conversations c
       SET summary = c.summarising || jsonb_build_object('text', btrim(q.answer)),
           summarise_at = NULL, summary_failures = 0, summarising = NULL
           {_WRITTEN}
    RETURNING c.id, q.state
""")
_TAKE_FAILED = text(f"""
    UPDATE millrace.conversations c SET {_FAILED} {_WRITTEN} IS NOT TRUE
    RETURNING c.id, q.state
""")
_FAIL = text(f"""
    UPDATE millrace.conversations c SET {_FAILED}
     WHERE c.id = :id AND c.summarise_at = :since AND c.summarising IS NULL
""")


async def take(connection: AsyncConnection, again_seconds: float) -> list[tuple[UUID, str]]:
    """Put the summaries that were written into their conversations: (conversation, state).

    One that failed is due again after so many seconds, a few times; then not before something
    more is said. Until there is another one the older one holds.
    """
    rows = [*await connection.execute(_TAKE)]
    rows += await connection.execute(_TAKE_FAILED, {"again": again_seconds})
    return [(row[0], row[1]) for row in rows]


async def fail(connection: AsyncConnection, of: Due, again_seconds: float) -> None:
    """It cannot be summarised now: as if a summary had failed."""
    await connection.execute(_FAIL, {"id": of.id, "since": of.since, "again": again_seconds})


_DROP = text("""
    UPDATE millrace.conversations
       SET summarise_at = now(), summary_failures = 0, summarising = NULL,
           summary = CASE WHEN CAST(summary ->> 'until' AS timestamptz) < :asked_at
                          THEN summary END
     WHERE id = :id AND (summarise_at IS NOT NULL
                         OR CAST(summary ->> 'until' AS timestamptz) >= :asked_at)
""")


async def drop(connection: AsyncConnection, conversation: UUID, asked_at: datetime) -> None:
    """Drop the summary if it covers what was asked then; what is being written now in any case."""
    await connection.execute(_DROP, {"id": conversation, "asked_at": asked_at})


_REQUEST_OF = text("""
    SELECT id FROM millrace.requests WHERE tenant_id = :tenant AND idempotency_key = :key
""")


async def request_named(connection: AsyncConnection, tenant: UUID, key: str) -> UUID | None:
    """The request that somebody made under this key, whatever became of it."""
    found: UUID | None = await connection.scalar(_REQUEST_OF, {"tenant": tenant, "key": key})
    return found
