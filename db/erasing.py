"""Erasing what was said in requests. That they were, and what they cost, stays in the ledger."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import requests

_JSON = requests.c.plan.type
# What goes on from a response of the conversation has its words, too.
_OWN = """
    WITH RECURSIVE own AS (
        SELECT id FROM millrace.requests
         WHERE tenant_id = :tenant AND conversation_id = :conversation
        UNION
        SELECT q.id FROM own JOIN millrace.requests q ON q.previous_id = own.id
         WHERE q.tenant_id = :tenant)
"""
_OPEN = text(f"""
    {_OWN} SELECT q.id FROM millrace.requests q JOIN own USING (id) WHERE q.finished_at IS NULL
""")
_PLANS = text(f"""
    {_OWN} SELECT q.id, q.plan FROM millrace.requests q JOIN own USING (id)
""").columns(plan=_JSON)


async def open_requests(
    connection: AsyncConnection, tenant: UUID, conversation: UUID
) -> list[UUID]:
    """Requests of a conversation, or that go on from one of its, that have not ended."""
    values = {"tenant": tenant, "conversation": conversation}
    return list((await connection.execute(_OPEN, values)).scalars())


async def plans(
    connection: AsyncConnection, tenant: UUID, conversation: UUID
) -> dict[UUID, Mapping[str, Any]]:
    """The plans of a conversation's requests, and of those that go on from them."""
    values = {"tenant": tenant, "conversation": conversation}
    return {row[0]: row[1] for row in await connection.execute(_PLANS, values)}


_ERASE = text("""
    UPDATE millrace.requests q
       SET question = jsonb_build_object(
               'model', q.question -> 'model', 'stream', q.question -> 'stream',
               'task', q.question -> 'task', 'messages', '[]'::jsonb, 'parameters', '{}'::jsonb,
               'training', false, 'hidden', true, 'erased', true),
           plan = CAST(r.plan AS jsonb), answer = left(q.answer, 0),
           error = CASE WHEN q.error IS NOT NULL THEN
               jsonb_build_object('code', q.error -> 'code', 'message', 'erased') END,
           idempotency_key = NULL, body_digest = NULL, cache_digest = NULL, asked_digest = NULL
      FROM unnest(CAST(:ids AS uuid[]), CAST(:plans AS text[])) AS r(id, plan)
     WHERE q.id = r.id
""")
_ERASE_SUBTASKS = text("""
    UPDATE millrace.subtasks
       SET text = left(text, 0), shown = '', reasoning = NULL, tool_calls = NULL, logprobs = NULL,
           error = CASE WHEN error IS NOT NULL THEN
               jsonb_build_object('kind', error -> 'kind', 'code', error -> 'code',
                                  'message', 'erased') END,
           seen_at = CASE WHEN state = 'dead' THEN coalesce(seen_at, now()) END
     WHERE request_id = ANY(:ids)
""")
_ERASE_ATTEMPTS = text("""
    UPDATE millrace.attempts a
       SET error = jsonb_build_object('kind', a.error -> 'kind', 'code', a.error -> 'code',
                                      'message', 'erased')
      FROM millrace.subtasks s
     WHERE s.id = a.subtask_id AND s.request_id = ANY(:ids) AND a.error IS NOT NULL
""")
# A person's reason is one of few words and no text; a judge's is about what was said.
_ERASE_JUDGEMENTS = text("""
    UPDATE millrace.judgements
       SET comment = NULL, correction = NULL, reason = CASE WHEN kind = 'human' THEN reason END
     WHERE request_id = ANY(:ids)
""")

# What is said of it there later finds no request, and whoever stores a rating now is waited for.
_ERASE_MESSAGES = text("DELETE FROM millrace.openwebui_messages WHERE request_id = ANY(:ids)")
_ERASE_NOTES = text("""
    UPDATE millrace.feedback_inbox
       SET note = '{}', state = 'refused', problem = 'erased', handled_at = now()
     WHERE state = 'waiting' AND request_id = ANY(:ids)
""")
_ERASE_MORE = (
    _ERASE_SUBTASKS,
    _ERASE_ATTEMPTS,
    _ERASE_MESSAGES,
    _ERASE_NOTES,
    _ERASE_JUDGEMENTS,
)


async def erase(connection: AsyncConnection, plans_: Mapping[UUID, Mapping[str, Any]]) -> None:
    """Leave no word of these requests. They have ended; their plans are given without words."""
    ids = list(plans_)
    texts = [to_json(plan).decode() for plan in plans_.values()]
    await connection.execute(_ERASE, {"ids": ids, "plans": texts})
    for statement in _ERASE_MORE:
        await connection.execute(statement, {"ids": ids})


_REPLACE = text("""
    UPDATE millrace.requests q
       SET plan = CAST(r.plan AS jsonb),
           question = jsonb_set(q.question, '{remembered}', CAST(r.remembered AS jsonb))
                      || '{"emptied": true}'
      FROM unnest(CAST(:ids AS uuid[]), CAST(:plans AS text[]), CAST(:given AS text[]))
           AS r(id, plan, remembered)
     WHERE q.id = r.id
""")


async def replace(
    connection: AsyncConnection,
    changed: Sequence[tuple[UUID, Mapping[str, Any], Mapping[str, Any]]],
) -> None:
    """Store (request, plan, what it was given) in the place of what was there.

    Marked as `emptied`: such a request has no prompts any more.
    """
    values = {
        "ids": [one[0] for one in changed],
        "plans": [to_json(one[1]).decode() for one in changed],
        "given": [to_json(one[2]).decode() for one in changed],
    }
    await connection.execute(_REPLACE, values)
