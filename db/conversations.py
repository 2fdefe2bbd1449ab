"""Conversations: what of a person's earlier questions and answers belongs together.

The messages are those of its requests. Functions on conversations run inside one tenant
(`db.tenancy`); those on exchanges read requests, which is for the tables' owner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import RowMapping, TextualSelect, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.conversation_table import conversations


@dataclass(frozen=True)
class StoredConversation:
    """A conversation as the database has it."""

    id: UUID
    tenant: UUID
    end_user: str | None
    name: str | None
    """Made up by its client."""
    title: str | None
    metadata: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    """Of its older exchanges: `text`, `until` (a time), `exchanges` (how many), `request`."""
    created_at: datetime
    updated_at: datetime


_COLUMNS = (
    conversations.c.id,
    conversations.c.tenant_id.label("tenant"),
    func.nullif(conversations.c.end_user, "").label("end_user"),
    conversations.c.name,
    conversations.c.title,
    conversations.c.metadata,
    conversations.c.summary,
    conversations.c.created_at,
    conversations.c.updated_at,
)


def _stored(row: RowMapping) -> StoredConversation:
    return StoredConversation(**row)


async def add(
    connection: AsyncConnection,
    tenant: UUID,
    end_user: str | None,
    *,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StoredConversation:
    """A new conversation of this person."""
    row = {
        "id": uuid4(),
        "tenant_id": tenant,
        "end_user": end_user or "",
        "title": title,
        "metadata": dict(metadata or {}),
    }
    query = insert(conversations).values(row).returning(*_COLUMNS)
    return _stored((await connection.execute(query)).mappings().one())


async def ensure(
    connection: AsyncConnection, tenant: UUID, end_user: str | None, name: str
) -> StoredConversation:
    """This person's conversation of that name, made if there is none."""
    key = {"tenant_id": tenant, "end_user": end_user or "", "name": name}
    made = insert(conversations).values(id=uuid4(), **key).on_conflict_do_nothing()
    await connection.execute(made)
    query = select(*_COLUMNS).filter_by(**key)
    return _stored((await connection.execute(query)).mappings().one())


async def find(connection: AsyncConnection, tenant: UUID, id_: UUID) -> StoredConversation | None:
    """A conversation of this tenant."""
    query = select(*_COLUMNS).filter_by(tenant_id=tenant, id=id_)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _stored(row) if row else None


async def listed(
    connection: AsyncConnection,
    tenant: UUID,
    end_user: str | None,
    limit: int,
    after: StoredConversation | None = None,
) -> list[StoredConversation]:
    """This person's conversations, the one that was used last first."""
    place = (conversations.c.updated_at, conversations.c.id)
    query = (
        select(*_COLUMNS)
        .filter_by(tenant_id=tenant, end_user=end_user or "")
        .order_by(*(column.desc() for column in place))
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(*place) < (after.updated_at, after.id))
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


async def change(
    connection: AsyncConnection, tenant: UUID, id_: UUID, values: Mapping[str, Any]
) -> StoredConversation | None:
    """Set `title` or `metadata`; None if there is no such conversation."""
    query = (
        conversations.update()
        .filter_by(tenant_id=tenant, id=id_)
        .values(dict(values))
        .returning(*_COLUMNS)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return _stored(row) if row else None


_TOUCH = text("""
    UPDATE millrace.conversations
       SET updated_at = now(), title = coalesce(title, CAST(:title AS text)),
           summarise_at = CASE WHEN :due THEN coalesce(summarise_at, now()) ELSE summarise_at END
     WHERE tenant_id = :tenant AND id = :id
""")


async def touch(
    connection: AsyncConnection, tenant: UUID, id_: UUID, title: str | None, *, due: bool
) -> None:
    """It goes on. `due`: its older exchanges are to be summarised."""
    await connection.execute(_TOUCH, {"tenant": tenant, "id": id_, "title": title, "due": due})


async def untitle(connection: AsyncConnection, tenant: UUID, id_: UUID, title: str | None) -> None:
    """Take this title away, if it has it: the next question gives it another one."""
    key = {"tenant_id": tenant, "id": id_, "title": title}
    await connection.execute(conversations.update().filter_by(**key).values(title=None))


async def hold(connection: AsyncConnection, tenant: UUID, id_: UUID) -> bool:
    """Let no request join it until the transaction ends; False if it does not exist."""
    query = select(conversations.c.id).filter_by(tenant_id=tenant, id=id_).with_for_update()
    return (await connection.execute(query)).one_or_none() is not None


async def delete(connection: AsyncConnection, tenant: UUID, id_: UUID) -> None:
    """Delete the conversation itself, with the vectors of its exchanges."""
    await connection.execute(conversations.delete().filter_by(tenant_id=tenant, id=id_))


_DELETE_EMPTY = text("""
    DELETE FROM millrace.conversations c
     WHERE c.tenant_id = :tenant AND c.id = :id
       AND NOT EXISTS (SELECT FROM millrace.requests q WHERE q.conversation_id = c.id)
""")


async def delete_empty(connection: AsyncConnection, tenant: UUID, id_: UUID) -> None:
    """Delete a conversation in which nothing was ever asked."""
    await connection.execute(_DELETE_EMPTY, {"tenant": tenant, "id": id_})


@dataclass(frozen=True)
class StoredExchange:
    """A request of a conversation and its answer."""

    request: UUID
    at: datetime
    question: Mapping[str, Any]
    """`messages`, what a `response` needs, and of what was `remembered` only `system`, `turns`."""
    answer: str
    tool_calls: Sequence[Mapping[str, Any]]


_IN_WORDS = """(
    SELECT jsonb_agg(CASE WHEN jsonb_typeof(m.message -> 'content') = 'array'
                          THEN jsonb_set(m.message, '{content}', jsonb_path_query_array(
                                   m.message, '$.content[*] ? (@.type == "text")'))
                          ELSE m.message END ORDER BY m.place)
      FROM jsonb_array_elements(q.question -> 'messages') WITH ORDINALITY AS m(message, place))
"""
_IS_EXCHANGE = """
    q.tenant_id = :tenant AND q.conversation_id = :conversation
       AND q.state = 'completed' AND q.question -> 'hidden' IS NULL
       AND q.question ->> 'task' IS NULL
"""
# Not the whole question: what it was given before is not needed again, and may be long.
_EXCHANGE = f"""
    SELECT q.id AS request, q.created_at AS at, q.answer,
           jsonb_build_object(
               'messages', q.question -> 'messages',
               'response', jsonb_build_object(
                   'instructions', q.question #> '{{response,instructions}}'),
               'remembered', jsonb_build_object(
                   'system', q.question #> '{{remembered,system}}',
                   'turns', q.question #> '{{remembered,turns}}')) AS question,
           CASE WHEN q.finish_reason = 'tool_calls' THEN (
               SELECT s.tool_calls FROM millrace.subtasks s
                WHERE s.request_id = q.id AND jsonb_typeof(s.tool_calls) = 'array'
                ORDER BY s.position DESC LIMIT 1) END AS tool_calls
      FROM millrace.requests q
     WHERE {_IS_EXCHANGE}
"""
_TYPES = {"question": conversations.c.metadata.type, "tool_calls": conversations.c.metadata.type}
_NEWEST = text(f"{_EXCHANGE} ORDER BY q.created_at DESC, q.id DESC LIMIT :limit").columns(**_TYPES)
# What comes first after the instructions says whether it belongs to the one before: a tool's word.
_LAST_TURNS = text(f"""
    WITH recent AS (
        SELECT q.id, q.created_at, jsonb_path_query_first(q.question,
                   '$.messages[*] ? (@.role != "system" && @.role != "developer").role')
                   IS DISTINCT FROM '"tool"' AS begins
          FROM millrace.requests q WHERE {_IS_EXCHANGE}
         ORDER BY q.created_at DESC, q.id DESC LIMIT :limit),
    placed AS (
        SELECT id, count(*) FILTER (WHERE begins) OVER (
                   ORDER BY created_at DESC, id DESC
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS later
          FROM recent)
    {_EXCHANGE} AND q.id IN (SELECT id FROM placed WHERE later < :turns)
     ORDER BY q.created_at, q.id
""").columns(**_TYPES)
_UNTIL = text(f"""
    {_EXCHANGE} AND (q.created_at, q.id) <= (:at, :request)
     ORDER BY q.created_at DESC, q.id DESC LIMIT :limit
""").columns(**_TYPES)
_SINCE = f"""
    {_EXCHANGE} AND (CAST(:after AS timestamptz) IS NULL OR q.created_at > :after)
     ORDER BY q.created_at, q.id LIMIT :limit
"""


def _reading(query: str, *, in_words: bool) -> TextualSelect:
    query = query.replace("q.question -> 'messages',", f"{_IN_WORDS},") if in_words else query
    return text(query).columns(**_TYPES)


_SINCE_BY_IN_WORDS = {each: _reading(_SINCE, in_words=each) for each in (True, False)}


def _exchange(row: RowMapping) -> StoredExchange:
    return StoredExchange(**{**row, "tool_calls": row["tool_calls"] or ()})


async def newest(
    connection: AsyncConnection, tenant: UUID, conversation: UUID, limit: int
) -> list[StoredExchange]:
    """Its last exchanges, oldest first."""
    values = {"tenant": tenant, "conversation": conversation, "limit": limit}
    rows = (await connection.execute(_NEWEST, values)).mappings().all()
    return [_exchange(row) for row in reversed(rows)]


async def last_turns(
    connection: AsyncConnection, tenant: UUID, conversation: UUID, turns: int, limit: int
) -> list[StoredExchange]:
    """Its last questions, with the rounds of their tools; at most `limit`, oldest first."""
    values = {"tenant": tenant, "conversation": conversation, "turns": turns, "limit": limit}
    return [_exchange(row) for row in (await connection.execute(_LAST_TURNS, values)).mappings()]


async def until(
    connection: AsyncConnection,
    tenant: UUID,
    conversation: UUID,
    last: tuple[datetime, UUID],
    limit: int,
) -> list[StoredExchange]:
    """Its exchanges up to that request, created then; oldest first."""
    at, request = last
    values = {"tenant": tenant, "conversation": conversation, "limit": limit}
    values |= {"at": at, "request": request}
    rows = (await connection.execute(_UNTIL, values)).mappings().all()
    return [_exchange(row) for row in reversed(rows)]


async def since(
    connection: AsyncConnection,
    tenant: UUID,
    conversation: UUID,
    after: datetime | None,
    limit: int,
    *,
    in_words: bool = False,
) -> list[StoredExchange]:
    """Its exchanges after that time, oldest first; `in_words`: without images."""
    values = {"tenant": tenant, "conversation": conversation, "after": after, "limit": limit}
    query = _SINCE_BY_IN_WORDS[in_words]
    return [_exchange(row) for row in (await connection.execute(query, values)).mappings()]


_BY_REQUEST = _reading(
    f"{_EXCHANGE.replace('= :conversation', '= ANY(:conversations)')} AND q.id = ANY(:requests)",
    in_words=True,
)


async def by_request(
    connection: AsyncConnection,
    tenant: UUID,
    conversations_: Sequence[UUID],
    requests: Sequence[UUID],
) -> dict[UUID, StoredExchange]:
    """The exchanges of these requests without images, as far as they are there."""
    values = {
        "tenant": tenant,
        "conversations": list(conversations_),
        "requests": list(requests),
    }
    rows = (await connection.execute(_BY_REQUEST, values)).mappings()
    return {row["request"]: _exchange(row) for row in rows}


_COUNTS = text("""
    SELECT conversation_id, count(*)
      FROM millrace.requests
     WHERE tenant_id = :tenant AND conversation_id = ANY(:ids) AND state = 'completed'
       AND question -> 'hidden' IS NULL AND question ->> 'task' IS NULL
     GROUP BY conversation_id
""")


async def counts(connection: AsyncConnection, tenant: UUID, ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many exchanges these conversations have; those without any are left out."""
    rows = await connection.execute(_COUNTS, {"tenant": tenant, "ids": list(ids)})
    return {row[0]: row[1] for row in rows}


_COUNT_AFTER = text("""
    SELECT count(*) FROM millrace.requests
     WHERE tenant_id = :tenant AND conversation_id = :conversation AND state = 'completed'
       AND question -> 'hidden' IS NULL AND question ->> 'task' IS NULL
       AND (CAST(:after AS timestamptz) IS NULL OR created_at > :after)
""")


async def count_after(
    connection: AsyncConnection, tenant: UUID, conversation: UUID, after: datetime | None
) -> int:
    """How many exchanges it has after that time."""
    values = {"tenant": tenant, "conversation": conversation, "after": after}
    return int(await connection.scalar(_COUNT_AFTER, values) or 0)


_OF_REQUEST = text("SELECT conversation_id FROM millrace.requests WHERE id = :request")


async def of_request(connection: AsyncConnection, request: UUID) -> UUID | None:
    """The conversation that a request is a part of."""
    found: UUID | None = await connection.scalar(_OF_REQUEST, {"request": request})
    return found
