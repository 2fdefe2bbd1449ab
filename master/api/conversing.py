"""Questions of a conversation: what is remembered for them, and what a client is told if not."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from uuid import UUID

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from db import conversations
from master.api import errors, outages
from master.planning.question import Question
from master.planning.remembered import NEW, Wish
from master.planning.strategies import UnknownModel, model_names
from master.remembering import OtherUser, UnknownConversation, remembering
from master.running import Running
from master.submit import Accepted, Asker
from queue_schemas.registry import RESERVED_PREFIX

_WHAT = "this conversation"
_GONE = "fk_requests_conversation_id"


async def within(master: Running, question: Question, who: Asker, wish: Wish | None) -> Question:
    """The question with what is remembered of its conversation. Raises `ApiError`."""
    if wish is None:
        return question
    name, registry = question.model, master.registry()
    if registry.get(name) is None and not name.startswith(RESERVED_PREFIX):
        # Before a conversation is made for nothing.
        unknown = UnknownModel(name, model_names(registry))
        raise errors.model_not_found(unknown.name, unknown.available)
    with outages.answered(), answered("conversation"):
        return await remembering(master.memory, question, who, wish)


@asynccontextmanager
async def undone(
    master: Running, question: Question, tenant: UUID, wish: Wish | None
) -> AsyncGenerator[None]:
    """A conversation that was made for a question goes again, if the question is refused."""
    try:
        yield
    except (errors.ApiError, IntegrityError):
        if wish is not None and wish.name == NEW and question.remembered is not None:
            made = question.remembered.conversation
            with suppress(SQLAlchemyError, OSError):  # what it was refused for says more
                async with master.engine.begin() as connection:
                    await conversations.delete_empty(connection, tenant, made)
        raise


@contextmanager
def answered(param: str | None = None) -> Iterator[None]:
    """Raise what is wrong with a conversation as `ApiError`, also if it was deleted meanwhile."""
    try:
        yield
    except UnknownConversation:
        raise errors.not_found(_WHAT, param) from None
    except OtherUser:
        message = "this conversation is another user's"
        raise errors.ApiError(403, "other_user", message, param="user") from None
    except IntegrityError as error:
        if _GONE not in str(error.orig):
            raise
        raise errors.not_found(_WHAT, param) from None


async def placed(master: Running, accepted: Accepted) -> Accepted:
    """An earlier request, with the conversation that it is a part of."""
    with outages.answered():
        async with master.engine.connect() as connection:
            found = await conversations.of_request(connection, accepted.request)
    return replace(accepted, conversation=found)
