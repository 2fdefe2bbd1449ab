"""Forgetting what was said: its words go, also where they were quoted; its bill stays."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import conversations, erasing, exchange_vectors, forgotten, requests, summaries
from db.forgotten import Mark
from db.requests import StoredRequest
from master.outages import is_outage
from master.remembering import UnknownConversation, title_of
from master.running import Running

log = structlog.get_logger(__name__)

_ROUNDS = 5
_AT_ONCE = 20
_SOON_SECONDS = 5.0
_LATER_SECONDS = 60.0
_KEPT = ("strategy", "aggregator", "gate", "retrieved", "chosen", "reason", "rules")
_KEPT_OF_STEP = ("key", "kind", "model", "depends_on", "seconds", "work")


class StillAnswering(Exception):
    """New questions came again and again while the old ones were being stopped."""


async def forget(master: Running, tenant: UUID, conversation: UUID) -> None:
    """Stop what runs in a conversation, erase what was said, and delete it.

    Raises UnknownConversation, StillAnswering, or the database's errors with nothing erased.
    """
    for _ in range(_ROUNDS):
        async with master.engine.connect() as connection:
            running = await erasing.open_requests(connection, tenant, conversation)
        for request in running:
            await master.cancel(request, tenant)
        if await _erased(master, tenant, conversation):
            return
    raise StillAnswering


async def _erased(master: Running, tenant: UUID, conversation: UUID) -> bool:
    """Whether it could be done: nothing may still be running."""
    async with master.engine.begin() as connection:
        if not await conversations.hold(connection, tenant, conversation):
            raise UnknownConversation
        if await erasing.open_requests(connection, tenant, conversation):
            return False
        plans = await erasing.plans(connection, tenant, conversation)
        await erasing.erase(connection, {id_: wordless(plan) for id_, plan in plans.items()})
        if plans:
            mark = await forgotten.leave(connection, tenant, conversation, list(plans))
            await _clean(connection, mark, everything=True)
        await conversations.delete(connection, tenant, conversation)
    return True


async def forget_response(master: Running, response: StoredRequest) -> None:
    """Hide one response that has ended; what its conversation made of it goes, too.

    Its own record stays. A summary that had its words is due anew.
    """
    tenant, conversation = response.tenant, response.conversation
    running: list[UUID] = []
    async with master.engine.begin() as connection:
        is_part = conversation is not None and await conversations.hold(
            connection, tenant, conversation
        )
        await requests.hide(connection, response.id)
        if conversation is not None and is_part:
            asked_at = response.created_at
            await summaries.drop(connection, conversation, asked_at)
            title = title_of(response.question["messages"])
            await conversations.untitle(connection, tenant, conversation, title)
            mark = await forgotten.leave(connection, tenant, conversation, [response.id], asked_at)
            running = await _clean(connection, mark, everything=True)
    for request in running:
        await master.cancel(request, tenant)


async def forget_late(engine: AsyncEngine, cancel: Callable[[UUID, UUID], Awaitable[bool]]) -> None:
    """Erase the words of what was deleted where they could not go at once.

    That is where a request was running, or was stored just then. Raises the database's outages.
    """
    async with engine.connect() as connection:
        due = await forgotten.due(connection, _AT_ONCE)
    for mark in due:
        try:
            running: list[UUID] = []
            async with engine.begin() as connection:
                if await forgotten.hold(connection, mark.id):
                    running = await _clean(connection, mark, everything=False)
            for request in running:
                await cancel(request, mark.tenant)
        except Exception as error:
            if is_outage(error):
                raise
            log.error("forgetting.failed", mark=str(mark.id), exc_info=error)
            async with engine.begin() as connection:
                await forgotten.look_again(connection, mark.id, _LATER_SECONDS)


async def _clean(connection: AsyncConnection, mark: Mark, *, everything: bool) -> list[UUID]:
    """Erase what quotes, as far as it has ended; gives the requests that are to be stopped."""
    found = await forgotten.quoting(connection, mark, everything=everything)
    ended = [one for one in found if one.ended]
    whole = {one.id: wordless(one.plan) for one in ended if one.whole}
    if whole:
        await erasing.erase(connection, whole)
    partly = [
        (one.id, without_prompts(one.plan), without(one.remembered or {}, mark))
        for one in ended
        if not one.whole
    ]
    if partly:
        await erasing.replace(connection, partly)
    await exchange_vectors.drop(connection, mark.requests)
    if len(ended) < len(found):
        await forgotten.look_again(connection, mark.id, _SOON_SECONDS)
    elif not await forgotten.let_go(connection, mark.id):
        await forgotten.look_again(connection, mark.id, _LATER_SECONDS)
    return [one.id for one in found if one.whole and not one.ended]


def wordless(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A stored plan with its steps and verdicts, and nothing that anybody said. Pure."""
    kept = {name: plan[name] for name in _KEPT if name in plan}
    steps = [
        {name: step[name] for name in _KEPT_OF_STEP if name in step} | {"messages": []}
        for step in plan.get("steps", ())
    ]
    judgements = [{**judgement, "reason": ""} for judgement in plan.get("judgements", ())]
    return kept | {"steps": steps} | ({"judgements": judgements} if judgements else {})


def without_prompts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A stored plan without what its steps were told; sources and titles stay. Pure."""
    steps = [{**step, "messages": []} for step in plan.get("steps", ())]
    return {**plan, "steps": steps}


def without(given: Mapping[str, Any], mark: Mark) -> dict[str, Any]:
    """What a request was given, without the words of what was deleted. Pure."""
    gone = set(map(str, mark.requests))
    recalled = [one for one in given.get("recalled", ()) if one["request"] not in gone]
    exchanges = [one for one in given.get("exchanges", ()) if one not in gone]
    left = {**given, "note": "", "recalled": recalled, "exchanges": exchanges}
    if len(exchanges) < len(given.get("exchanges", ())):
        left["messages"] = []  # which of them are whose is not known any more
    until = given.get("summarised_until")
    if mark.asked_at and until and datetime.fromisoformat(until) >= mark.asked_at:
        left |= {"summary": "", "summarised_until": None}
    return left
