"""Remembering: what a question of a conversation is given of what was said before it."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import conversations
from db.conversations import StoredConversation
from db.tenancy import as_tenant, enter
from master.exchanges import exchanges_of, summary_of
from master.planning.assign import default_model, generative, output_limit
from master.planning.chat import ChatMessage, estimate_chat_tokens, last_user, text_of
from master.planning.front_end import background_task
from master.planning.memory import Past, remember, wants_summary
from master.planning.question import Fleet, Question
from master.planning.remembered import NEW, Wish
from master.planning.strategies import GROWING, named
from master.planning.under_rules import most_told
from master.recall import Found, Recall
from master.rules.matching import RuleInForce
from master.submit import Asker
from queue_schemas.registry import RESERVED_PREFIX

_PREFIX = "conv_"
_ID = re.compile(rf"{_PREFIX}([0-9a-f]{{32}})")
_TITLE_CHARACTERS = 80
_SPARE_TOKENS = 64


class UnknownConversation(LookupError):
    """The tenant has no such conversation."""


class OtherUser(PermissionError):
    """The conversation is another person's."""


@dataclass(frozen=True)
class Memory:
    """What remembering needs."""

    engine: AsyncEngine
    fleet: Callable[[], Fleet]
    rules: Callable[[UUID], Awaitable[Sequence[RuleInForce]]]
    """Of a tenant; what they say to a model needs room beside what is remembered."""
    recall: Recall
    window: int
    recalls: bool
    """Where a client does not say."""


async def remembering(to: Memory, question: Question, who: Asker, wish: Wish) -> Question:
    """The question with what is remembered for it; a front end's background prompt as it is.

    Raises UnknownConversation, OtherUser, or the database's errors.
    """
    if background_task(question) is not None:
        return question
    found = await _opened(to.engine, who, wish.name)
    wanted = to.recalls if wish.recall is None else wish.recall
    asked = _asked(question.messages)
    of = (who.tenant, found.end_user, found.id)
    recalled = await to.recall.find(of, asked) if wanted else Found()
    room = room_for_memory(question, to.fleet(), await to.rules(who.tenant))
    async with to.engine.begin() as connection:
        past = await _past(connection, found, recalled, to.window)
        given = remember(past, question.messages, to.window, room)
        due = wants_summary(past, given, to.window)
        await enter(connection, who.tenant)
        title = title_of(question.messages)
        await conversations.touch(connection, who.tenant, found.id, title, due=due)
    return replace(question, remembered=given)


async def find(connection: AsyncConnection, who: Asker, conversation: UUID) -> StoredConversation:
    """A conversation as this person may see it. Raises UnknownConversation, OtherUser."""
    found = await conversations.find(connection, who.tenant, conversation)
    if found is None:
        raise UnknownConversation
    if found.end_user and found.end_user != who.end_user:
        raise OtherUser
    return found


def title_of(messages: Sequence[ChatMessage]) -> str | None:
    """What a conversation is called that begins with this question."""
    return " ".join(_asked(messages).split())[:_TITLE_CHARACTERS] or None


def identity(text: str) -> UUID | None:
    """The conversation that an id of the API means; None if it is no id."""
    named_ = _ID.fullmatch(text)
    return UUID(named_[1]) if named_ else None


async def _opened(engine: AsyncEngine, who: Asker, name: str) -> StoredConversation:
    async with as_tenant(engine, who.tenant) as connection:
        if name == NEW:
            return await conversations.add(connection, who.tenant, who.end_user)
        if name.startswith(_PREFIX):
            id_ = identity(name)
            if id_ is None:
                raise UnknownConversation
            return await find(connection, who, id_)
        return await conversations.ensure(connection, who.tenant, who.end_user, name)


async def _past(
    connection: AsyncConnection, of: StoredConversation, found: Found, window: int
) -> Past:
    summary = summary_of(of.summary)
    # Rounds of tools count with their question, so there may be more of them than the window has.
    most = 4 * window + 4
    stored = await conversations.last_turns(connection, of.tenant, of.id, max(1, window), most)
    after = summary.until if summary else None
    uncovered = await conversations.count_after(connection, of.tenant, of.id, after)
    return Past(of.id, exchanges_of(stored), uncovered, summary, found.recalled, found.how)


def room_for_memory(question: Question, fleet: Fleet, rules: Sequence[RuleInForce]) -> int:
    """Tokens that are left for memory in the context of whichever model may be asked.

    Half of it where steps get the texts of other steps as well, a quarter less with documents, and
    what rules may tell the model.
    """
    name = question.model.removeprefix(RESERVED_PREFIX).partition(":")[0]
    model = fleet.registry.get(question.model)
    models = [model] if model and model.chats else [default_model(question, fleet)]
    share = 1.0
    if not model and name in GROWING and name != "split":
        models, share = list(generative(fleet.registry.chat_models())), 0.5
    if named(question).retrieval is not None:
        share -= 0.25
    tokens = min(
        int(share * m.context_length) - output_limit(question.parameters, m) for m in models
    )
    told = most_told(question, rules)
    return tokens - estimate_chat_tokens(question.messages) - told - _SPARE_TOKENS


def _asked(messages: Sequence[ChatMessage]) -> str:
    place = last_user(messages)
    return text_of(messages[place]) if place is not None else ""
