"""Who asked what: the message of Open WebUI that a request answers, and what is asked again.

Both are stored in the statement that stores the request, and only where there is something to
store; see `db.requests.add`.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_schemas.states import RequestState


@dataclass(frozen=True)
class Message:
    """An answer as Open WebUI names it. A rating of it names the same."""

    id: str
    user: str
    chat: str | None = None
    question: str | None = None
    """Id of the message that it answers; the same when it is generated again."""


@dataclass(frozen=True)
class Asked:
    """What tells that somebody asks again, which says something of the earlier answer."""

    digest: bytes | None = None
    """Equal where the same is asked; None: nobody can ask this again."""
    within_seconds: float = 0.0
    """Later than that it is a new question."""
    message: Message | None = None

    def values(self) -> dict[str, Any]:
        """What `ADD_ASKED` takes."""
        message = self.message
        return {
            "asked": self.digest,
            "within": self.within_seconds,
            "message": message.id if message else None,
            "message_user": message.user if message else None,
            "chat": message.chat if message else None,
            "user_message": message.question if message else None,
        }


_MESSAGE = """
    INSERT INTO millrace.openwebui_messages
           (tenant_id, message_id, request_id, user_id, chat_id, user_message_id)
"""

_MOST_BEFORE = 10
"""Only the latest are looked at: a program may ask the same all day."""

# A message that was seen before asks nothing again: it is a round of its tools, or it is gone on
# with. Of two models that are asked side by side neither has ended, and nobody reads an answer in
# less than a second. Whoever deletes the earlier one just now is not waited for.
ADD_ASKED = f"""
    message AS (
        {_MESSAGE}
        SELECT q.tenant_id, CAST(:message AS text), q.id, CAST(:message_user AS text),
               CAST(:chat AS text), CAST(:user_message AS text)
          FROM request q WHERE CAST(:message AS text) IS NOT NULL
    ), before AS (
        SELECT e.id
          FROM request q CROSS JOIN LATERAL (
               SELECT r.* FROM millrace.requests r
                WHERE r.tenant_id = q.tenant_id AND r.asked_digest = q.asked_digest
                ORDER BY r.created_at DESC LIMIT {_MOST_BEFORE}) e
         WHERE e.end_user IS NOT DISTINCT FROM q.end_user
           AND e.state = '{RequestState.COMPLETED}'
           AND e.finish_reason IS DISTINCT FROM 'tool_calls'
           AND e.finished_at > now() - make_interval(secs => CAST(:within AS double precision))
           AND e.finished_at < now() - interval '1 second'
           AND NOT EXISTS (SELECT FROM millrace.openwebui_messages m
                            WHERE m.tenant_id = q.tenant_id
                              AND m.message_id = CAST(:message AS text))
           AND NOT EXISTS (SELECT FROM millrace.judgements j
                            WHERE j.request_id = e.id AND j.kind = 'retry')
         ORDER BY (e.model = q.model) DESC, e.created_at DESC LIMIT 1
    ), earlier AS (
        SELECT e.id, e.tenant_id, e.end_user
          FROM millrace.requests e WHERE e.id = (SELECT id FROM before)
           FOR KEY SHARE SKIP LOCKED
    ), retried AS (
        INSERT INTO millrace.judgements (id, tenant_id, request_id, kind, rater, source)
        SELECT gen_random_uuid(), e.tenant_id, e.id, 'retry', 'user:' || coalesce(e.end_user, ''),
               'system'
          FROM earlier e
        ON CONFLICT DO NOTHING
    ),
"""

_NOTE = text(f"""
    {_MESSAGE}
    VALUES (:tenant, :message, :request, :message_user, :chat, :user_message)
    ON CONFLICT DO NOTHING
""")


async def note(connection: AsyncConnection, tenant: UUID, request: UUID, message: Message) -> None:
    """Store that a request that was there before answers this message as well."""
    values = Asked(message=message).values()
    del values["asked"], values["within"]
    await connection.execute(_NOTE, values | {"tenant": tenant, "request": request})
