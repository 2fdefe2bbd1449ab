"""What `/v1/conversations` takes and answers with; OpenAI's shapes, with a little more."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from db.conversations import StoredConversation
from master.api.chat_schema import Metadata
from master.planning.remembered import shown_id


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class ConversationRequest(_Strict):
    """The body of `POST /v1/conversations`."""

    metadata: Metadata | None = None
    title: str | None = Field(default=None, min_length=1, max_length=200)
    user: str | None = Field(default=None, max_length=512)
    items: list[Any] | None = Field(
        default=None, max_length=0, description="A conversation begins with its first question."
    )


class ConversationChange(_Strict):
    """The body of `POST /v1/conversations/{id}`; what is not given stays."""

    metadata: Metadata | None = None
    title: str | None = Field(default=None, min_length=1, max_length=200)
    user: str | None = Field(default=None, max_length=512)


class SummaryRecord(BaseModel):
    """What is left of a conversation's older exchanges."""

    text: str
    exchanges: int = Field(description="How many it covers.")
    until: str = Field(description="When the newest of them was asked.")
    request: str = Field(description="That wrote it.")


class ConversationRecord(BaseModel):
    """A conversation."""

    id: str
    object: Literal["conversation"]
    created_at: int
    updated_at: int
    metadata: dict[str, str]
    title: str | None
    name: str | None = Field(description="Made up by its client.")
    user: str | None
    exchanges: int = Field(description="Questions that have their answer.")
    summary: SummaryRecord | None


class ConversationList(BaseModel):
    """`GET /v1/conversations`: the one that was used last first."""

    object: Literal["list"]
    data: list[ConversationRecord]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedConversation(BaseModel):
    """A conversation of which no word is left."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class ConversationItemList(BaseModel):
    """Items of a conversation."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def conversation_record(stored: StoredConversation, exchanges: int) -> dict[str, Any]:
    """A conversation as the API shows it."""
    return {
        "id": shown_id(stored.id),
        "object": "conversation",
        "created_at": int(stored.created_at.timestamp()),
        "updated_at": int(stored.updated_at.timestamp()),
        "metadata": dict(stored.metadata),
        "title": stored.title,
        "name": stored.name,
        "user": stored.end_user,
        "exchanges": exchanges,
        "summary": dict(stored.summary) if stored.summary else None,
    }


def page(items: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of a list."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
