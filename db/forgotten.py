"""Marks of what was deleted, by which requests are found that were given words of it.

A request that runs needs what it was given, and one may be stored just after the deletion that
read its words just before. So a mark stays for an hour, and longer while such a request runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.conversation_table import conversations

_JSON = conversations.c.metadata.type


@dataclass(frozen=True)
class Mark:
    """Requests of one conversation whose words are to be nowhere."""

    id: UUID
    tenant: UUID
    requests: Sequence[UUID]
    asked_at: datetime | None
    """Of one response that was deleted; None: the conversation was, and what goes on from it."""


@dataclass(frozen=True)
class Quoting:
    """A request that was given words of what was deleted."""

    id: UUID
    plan: Mapping[str, Any]
    remembered: Mapping[str, Any] | None
    ended: bool
    whole: bool
    """It is about nothing else: it goes on from there, or wrote the summary."""


_COLUMNS = "g.id, g.tenant_id AS tenant, g.requests, g.asked_at"
_LEAVE = text("""
    INSERT INTO millrace.forgotten AS g
           (id, tenant_id, end_user, conversation_id, asked_at, requests)
    SELECT gen_random_uuid(), c.tenant_id, c.end_user, c.id, CAST(:asked_at AS timestamptz),
           CAST(:requests AS uuid[])
      FROM millrace.conversations c WHERE c.tenant_id = :tenant AND c.id = :conversation
    RETURNING g.id
""")


async def leave(
    connection: AsyncConnection,
    tenant: UUID,
    conversation: UUID,
    requests: Sequence[UUID],
    asked_at: datetime | None = None,
) -> Mark:
    """Mark these requests of a conversation, which must still be there."""
    values = {
        "tenant": tenant,
        "conversation": conversation,
        "requests": list(requests),
        "asked_at": asked_at,
    }
    id_ = (await connection.execute(_LEAVE, values)).scalar_one()
    return Mark(id_, tenant, requests, asked_at)


_DUE = text(f"""
    SELECT {_COLUMNS} FROM millrace.forgotten g WHERE g.look_at <= now()
     ORDER BY g.look_at LIMIT :limit
""")
_HOLD = text("""
    SELECT id FROM millrace.forgotten WHERE id = :mark AND look_at <= now()
       FOR UPDATE SKIP LOCKED
""")


async def due(connection: AsyncConnection, limit: int) -> list[Mark]:
    """Marks that are to be looked at now."""
    rows = (await connection.execute(_DUE, {"limit": limit})).mappings()
    return [Mark(**row) for row in rows]


async def hold(connection: AsyncConnection, mark: UUID) -> bool:
    """Keep a mark from others until the transaction ends; False if somebody was faster."""
    return (await connection.execute(_HOLD, {"mark": mark})).one_or_none() is not None


# What ended long before the deletion was looked at then. A transaction's now is its beginning, so
# some that ended a little earlier were not to be seen.
_GIVEN = text("""
    SELECT q.id, q.plan, q.question -> 'remembered' AS remembered,
           q.finished_at IS NOT NULL AS ended,
           q.question #> '{response,summary}' IS NOT NULL AS whole
      FROM millrace.forgotten g
      JOIN millrace.conversations c
        ON c.tenant_id = g.tenant_id AND c.end_user = g.end_user
       AND (c.end_user <> '' OR c.id = g.conversation_id)
      JOIN millrace.requests q ON q.conversation_id = c.id AND q.tenant_id = g.tenant_id
     WHERE g.id = :mark
       AND (:everything OR q.finished_at IS NULL
            OR q.finished_at > g.forgotten_at - interval '10 minutes')
       AND (jsonb_path_query_array(q.question, '$.remembered.recalled[*].request')
                ?| CAST(g.requests AS text[])
            OR (q.question #> '{remembered,exchanges}') ?| CAST(g.requests AS text[])
            OR (c.id = g.conversation_id AND g.asked_at <= CAST(coalesce(
                    q.question #>> '{remembered,summarised_until}',
                    q.question #>> '{response,summary,until}') AS timestamptz)))
""").columns(plan=_JSON, remembered=_JSON)
_FOLLOWING = text("""
    WITH RECURSIVE own AS (
        SELECT unnest(g.requests) AS id FROM millrace.forgotten g
         WHERE g.id = :mark AND g.asked_at IS NULL
        UNION
        SELECT q.id FROM own JOIN millrace.requests q ON q.previous_id = own.id)
    SELECT q.id, q.plan, NULL::jsonb AS remembered, q.finished_at IS NOT NULL AS ended,
           true AS whole
      FROM own JOIN millrace.requests q USING (id)
     WHERE q.tenant_id = :tenant AND q.question -> 'erased' IS NULL
""").columns(plan=_JSON, remembered=_JSON)


async def quoting(connection: AsyncConnection, mark: Mark, *, everything: bool) -> list[Quoting]:
    """Requests that have words of what was deleted; without `everything` only recent ones."""
    values = {"mark": mark.id, "tenant": mark.tenant, "everything": everything}
    following = (await connection.execute(_FOLLOWING, values)).mappings().all()
    given = (await connection.execute(_GIVEN, values)).mappings().all()
    found = {row["id"]: Quoting(**row) for row in (*given, *following)}
    return list(found.values())


_LOOK_AGAIN = text("""
    UPDATE millrace.forgotten SET look_at = now() + make_interval(secs => :seconds)
     WHERE id = :mark
""")
_LET_GO = text("""
    DELETE FROM millrace.forgotten
     WHERE id = :mark AND forgotten_at < now() - interval '1 hour'
""")


async def look_again(connection: AsyncConnection, mark: UUID, seconds: float) -> None:
    """Look at it again in so many seconds."""
    await connection.execute(_LOOK_AGAIN, {"mark": mark, "seconds": seconds})


async def let_go(connection: AsyncConnection, mark: UUID) -> bool:
    """Take the mark away if it is old enough; whether it was."""
    return (await connection.execute(_LET_GO, {"mark": mark})).rowcount == 1
