"""Stored requests as the routes find them: by the id that a client sent, and only its own."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from db import conversations, requests
from db.requests import StoredRequest
from db.tenancy import enter
from master import ending, remembering
from master.api import conversing, errors, outages, plans
from master.api.responses_schema import Message
from master.ending import Ending
from master.exchanges import exchanges_of
from master.live import Live
from master.running import Running
from master.submit import Asker
from queue_schemas.states import RequestState

REPLAY_SECONDS = 3600
"""How long the stream of a request that has ended can be read again."""

_RESPONSE_ID = re.compile(r"resp_([0-9a-f]{32})")
_WHAT = "this response"
_MOST_BEFORE = 500
"""Exchanges of a conversation that one of its responses is gone on with."""


async def find_response(
    master: Running, response_id: str, tenant: UUID, param: str | None = None
) -> tuple[StoredRequest, Ending | None]:
    """A response of this tenant that was not deleted, and how it ended. Raises 404."""
    named = _RESPONSE_ID.fullmatch(response_id)
    if named is None:
        raise errors.not_found(_WHAT, param)
    with outages.answered():
        async with master.engine.connect() as connection:
            stored = await requests.find(connection, UUID(named[1]), tenant)
            if stored is None or stored.question.get("hidden"):
                raise errors.not_found(_WHAT, param)
            return stored, await _ending(connection, stored)


async def _ending(connection: AsyncConnection, stored: StoredRequest) -> Ending | None:
    if not stored.finished_at:
        return None
    with plans.answered():
        return await ending.load(connection, stored.id)


async def conversation(master: Running, response_id: str, who: Asker) -> tuple[UUID, list[Message]]:
    """A response that is to be gone on from, and what was said until then.

    Where it is a part of a conversation, that is all of it until then. Its instructions are not
    handed on: new ones take their place. Raises 403, 404, or 400 without an answer.
    """
    param = "previous_response_id"
    stored, how = await find_response(master, response_id, who.tenant, param)
    if how is None or how.state is not RequestState.COMPLETED:
        words = f"there is no answer to go on from: it is {stored.state}"
        raise errors.invalid_value(words, param)
    answer: Message = {"role": "assistant", "content": how.answer or ""}
    if how.tool_calls:
        answer = {**answer, "content": how.answer or None, "tool_calls": list(how.tool_calls)}
    return stored.id, [*await _said_before(master, stored, who), *said_in(stored), answer]


async def _said_before(master: Running, stored: StoredRequest, who: Asker) -> list[Message]:
    if stored.conversation is None:
        return []
    with outages.answered():
        async with master.engine.begin() as connection:
            last = (stored.created_at, stored.id)
            found = await conversations.until(
                connection, who.tenant, stored.conversation, last, _MOST_BEFORE
            )
            await enter(connection, who.tenant)
            with conversing.answered("previous_response_id"):
                await remembering.find(connection, who, stored.conversation)
    *earlier, _ = exchanges_of(found) or ((),)
    return [message for exchange in earlier for message in exchange.said]


def said_in(stored: StoredRequest) -> list[Message]:
    """The conversation that a response answers, without the instructions for it."""
    return without_instructions(stored.question)


def without_instructions(question: Mapping[str, Any]) -> list[Message]:
    """What a stored question says, without the instructions of a response."""
    said: list[Message] = list(question["messages"])
    instructed = (question.get("response") or {}).get("instructions")
    return said[1:] if instructed else said


async def join(master: Running, stored: StoredRequest) -> Live:
    """Follow a stored request. Raises 410 when it ended too long ago, 503 while draining."""
    oldest = stored.read_at - timedelta(seconds=REPLAY_SECONDS)
    if stored.finished_at is not None and stored.finished_at < oldest:
        raise errors.stream_expired()
    if master.draining:
        raise errors.server_draining()
    with outages.answered(), plans.answered():
        live = await master.streams.join(stored.id)
    if live is None:
        raise errors.not_found("this request")
    return live
