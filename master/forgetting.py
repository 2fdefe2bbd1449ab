"""Forgetting a conversation: its words go, also where they were recalled; its bill stays."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from db import conversations, erasing
from master.remembering import UnknownConversation
from master.running import Running

_ROUNDS = 5
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
        quoting = await erasing.quoting(connection, tenant, conversation)
        await erasing.replace(
            connection,
            [
                (id_, without_prompts(plan), without(given, conversation))
                for id_, (plan, given) in quoting.items()
            ],
        )
        await conversations.delete(connection, tenant, conversation)
    return True


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


def without(given: Mapping[str, Any], conversation: UUID) -> dict[str, Any]:
    """What a request was given, without what was recalled from that conversation. Pure."""
    recalled = [one for one in given["recalled"] if one["conversation"] != str(conversation)]
    return {**given, "note": "", "recalled": recalled}
