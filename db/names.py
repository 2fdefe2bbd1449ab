"""What makes two requests one: the names that clients give them, or answers that still hold."""

from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import requests

_RELEASE_NAME = text("""
    UPDATE millrace.requests SET idempotency_key = NULL
     WHERE tenant_id = :tenant AND idempotency_key = :key AND state = 'cancelled'
""")


async def find(connection: AsyncConnection, tenant: UUID, key: str) -> tuple[UUID, bytes] | None:
    """The request that a client gave this name, with the digest of its body.

    A cancelled one loses its name: its client left, and comes back for an answer.
    """
    await connection.execute(_RELEASE_NAME, {"tenant": tenant, "key": key})
    query = select(requests.c.id, requests.c.body_digest).where(
        requests.c.tenant_id == tenant, requests.c.idempotency_key == key
    )
    row = (await connection.execute(query)).one_or_none()
    return (row[0], row[1]) if row else None


# Who has an answer generated again wants another one.
_REMEMBERED = text("""
    SELECT q.id FROM millrace.requests q
     WHERE q.tenant_id = :tenant AND q.cache_digest = :digest AND q.state = 'completed'
       AND q.error IS NULL AND q.finish_reason = 'stop'
       AND q.finished_at > now() - make_interval(secs => :seconds)
       AND NOT EXISTS (SELECT FROM millrace.openwebui_messages m
                        WHERE m.request_id = q.id
                          AND m.user_message_id = CAST(:question AS text))
     ORDER BY q.finished_at DESC LIMIT 1
""")


async def remembered(
    connection: AsyncConnection,
    tenant: UUID,
    digest: bytes,
    seconds: float,
    question: str | None = None,
) -> UUID | None:
    """The latest request that asked the same and has a whole answer that is not older.

    Those that answered this message of Open WebUI's user already are left out.
    """
    values = {"tenant": tenant, "digest": digest, "seconds": seconds, "question": question}
    found: UUID | None = await connection.scalar(_REMEMBERED, values)
    return found
