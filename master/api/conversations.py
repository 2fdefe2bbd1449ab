"""`/v1/conversations`: make, list, look at, change and delete what is remembered."""

import re
import time
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request

from db import conversations, requests
from db.conversations import StoredConversation, StoredExchange
from db.tenancy import as_tenant, enter
from master import remembering
from master.api import errors, outages
from master.api.auth import asker
from master.api.bodies import parsed, unknown_fields, warn_of
from master.api.conversation_shapes import (
    ConversationChange,
    ConversationItemList,
    ConversationList,
    ConversationRecord,
    ConversationRequest,
    DeletedConversation,
    conversation_record,
    page,
)
from master.api.conversing import answered
from master.api.input_items import as_items, as_output
from master.api.openapi import request_body, success
from master.api.state import ring, running
from master.api.stored import without_instructions
from master.api.strict_json import read_json
from master.exchanges import exchange_of
from master.forgetting import StillAnswering, forget
from master.planning.remembered import shown_id
from master.running import Running
from master.submit import Asker

router = APIRouter(prefix="/v1/conversations", tags=["OpenAI"])

_FAILURES = (400, 401, 403, 404, 503)
_WRITING = (400, 401, 403, 404, 408, 413, 415, 503)
_ITEM = re.compile(r"(?:msg|fc|fco)_([0-9a-f]{32})(?:_in)?(?:_\d+)?")

User = Annotated[
    str | None, Query(max_length=512, description="Whose, where no header of the front end says.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="The most to list at once.")]
After = Annotated[str | None, Query(max_length=128, description="List what follows this one.")]


@router.post(
    "",
    response_model=None,
    responses=success(ConversationRecord, *_WRITING),
    openapi_extra=request_body(ConversationRequest),
)
async def create_conversation(request: Request) -> dict[str, Any]:
    """Begin a conversation; questions name it as `conversation`."""
    master, raw, key = await _read(request)
    warn_of(unknown_fields(raw, ConversationRequest), strict=True)
    body = parsed(ConversationRequest, raw)
    who = asker(key, request.headers, body.user)
    with outages.answered():
        async with as_tenant(master.engine, who.tenant) as connection:
            made = await conversations.add(
                connection, who.tenant, who.end_user, title=body.title, metadata=body.metadata
            )
    return conversation_record(made, 0)


@router.get("", response_model=None, responses=success(ConversationList, *_FAILURES))
async def list_conversations(
    request: Request, user: User = None, limit: Limit = 20, after: After = None
) -> dict[str, Any]:
    """Conversations of the user who is named, or of nobody in particular."""
    master, who = await _who(request, user, {"user", "limit", "after"})
    with outages.answered():
        async with master.engine.begin() as connection:
            await enter(connection, who.tenant)
            last = None
            if after is not None:
                with answered("after"):
                    last = await remembering.find(connection, who, _identity(after, "after"))
            found = await conversations.listed(
                connection, who.tenant, who.end_user, limit + 1, last
            )
        shown = found[:limit]
        async with master.engine.connect() as connection:
            counts = await conversations.counts(connection, who.tenant, [c.id for c in shown])
    data = [conversation_record(one, counts.get(one.id, 0)) for one in shown]
    return page(data, has_more=len(found) > limit)


@router.get(
    "/{conversation_id}", response_model=None, responses=success(ConversationRecord, *_FAILURES)
)
async def show_conversation(
    conversation_id: str, request: Request, user: User = None
) -> dict[str, Any]:
    """A conversation of yours."""
    master, who = await _who(request, user, {"user"})
    with outages.answered():
        return await _record(master, await _find(master, who, conversation_id))


@router.post(
    "/{conversation_id}",
    response_model=None,
    responses=success(ConversationRecord, *_WRITING),
    openapi_extra=request_body(ConversationChange),
)
async def change_conversation(conversation_id: str, request: Request) -> dict[str, Any]:
    """Give a conversation of yours another title or other metadata."""
    master, raw, key = await _read(request)
    warn_of(unknown_fields(raw, ConversationChange), strict=True)
    body = parsed(ConversationChange, raw)
    who = asker(key, request.headers, body.user)
    values = {"title": body.title, "metadata": body.metadata}
    given = {name: value for name, value in values.items() if name in raw}
    if given.get("metadata", {}) is None:
        given["metadata"] = {}
    with outages.answered():
        found = await _find(master, who, conversation_id)
        if given:
            async with as_tenant(master.engine, who.tenant) as connection:
                changed = await conversations.change(connection, who.tenant, found.id, given)
            if changed is None:
                raise errors.not_found("this conversation")
            found = changed
        return await _record(master, found)


@router.delete(
    "/{conversation_id}",
    response_model=None,
    responses=success(DeletedConversation, *_FAILURES, 409),
)
async def delete_conversation(
    conversation_id: str, request: Request, user: User = None
) -> dict[str, Any]:
    """Delete a conversation of yours with every word of it; what it cost stays in the bill."""
    master, who = await _who(request, user, {"user"})
    with outages.answered(), answered():
        found = await _find(master, who, conversation_id)
        try:
            await forget(master, who.tenant, found.id)
        except StillAnswering:
            message = "questions of this conversation keep coming; try again"
            raise errors.ApiError(409, "still_answering", message) from None
    return {
        "id": shown_id(found.id),
        "object": "conversation.deleted",
        "deleted": True,
    }


@router.get(
    "/{conversation_id}/items",
    response_model=None,
    responses=success(ConversationItemList, *_FAILURES),
)
async def list_items(
    conversation_id: str,
    request: Request,
    user: User = None,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
    after: After = None,
) -> dict[str, Any]:
    """What was said in a conversation of yours, as items of OpenAI's."""
    master, who = await _who(request, user, {"user", "limit", "order", "after"})
    with outages.answered():
        found = await _find(master, who, conversation_id)
        async with master.engine.connect() as connection:
            # Each exchange has an item at least, so these are enough.
            exchanges = await _exchanges(connection, found, limit + 1, order, after)
    items = [item for exchange in exchanges for item in _items(exchange, order)]
    rest = items[_place(items, after) :]
    return page(rest[:limit], has_more=len(rest) > limit)


async def _exchanges(
    connection: AsyncConnection,
    of: StoredConversation,
    limit: int,
    order: str,
    after: str | None,
) -> list[StoredExchange]:
    """Exchanges from the one of the item on, or from the beginning of the order."""
    if after is None and order == "asc":
        return await conversations.since(connection, of.tenant, of.id, None, limit)
    if after is None:
        return (await conversations.newest(connection, of.tenant, of.id, limit))[::-1]
    named = _ITEM.fullmatch(after)
    stored = await requests.find(connection, UUID(named[1]), of.tenant) if named else None
    if stored is None or stored.conversation != of.id:
        raise _no_item()
    place = (stored.created_at, stored.id)
    if order == "desc":
        return (await conversations.until(connection, of.tenant, of.id, place, limit + 1))[::-1]
    first = await conversations.until(connection, of.tenant, of.id, place, 1)
    return first + await conversations.since(connection, of.tenant, of.id, stored.created_at, limit)


def _items(exchange: StoredExchange, order: str) -> list[dict[str, Any]]:
    said = without_instructions(exchange.question)
    answer = exchange_of(exchange).answer
    items = [*as_items(exchange.request, said), *as_output(exchange.request, answer)]
    return items[::-1] if order == "desc" else items


def _place(items: list[dict[str, Any]], after: str | None) -> int:
    if after is None:
        return 0
    for place, item in enumerate(items, start=1):
        if item["id"] == after:
            return place
    raise _no_item()


def _no_item() -> errors.ApiError:
    return errors.invalid_value("this is no item of this conversation", "after")


async def _read(request: Request) -> tuple[Running, dict[str, Any], Any]:
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    return master, await read_json(request), key


async def _who(request: Request, user: str | None, known: set[str]) -> tuple[Running, Asker]:
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys() - known), strict=True)
    if user and "\0" in user:
        raise errors.invalid_value("user must not contain NUL characters", "user")
    return master, asker(key, request.headers, user)


def _identity(text: str, param: str | None = None) -> UUID:
    """A malformed id gets the same answer as an unknown one."""
    found = remembering.identity(text)
    if found is None:
        raise errors.not_found("this conversation", param)
    return found


async def _find(master: Running, who: Asker, conversation_id: str) -> StoredConversation:
    async with as_tenant(master.engine, who.tenant) as connection:
        with answered():
            return await remembering.find(connection, who, _identity(conversation_id))


async def _record(master: Running, stored: StoredConversation) -> dict[str, Any]:
    async with master.engine.connect() as connection:
        counts = await conversations.counts(connection, stored.tenant, [stored.id])
    return conversation_record(stored, counts.get(stored.id, 0))
