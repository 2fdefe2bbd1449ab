"""What a question was given of its conversation, as it is stored with it and shown."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from master.planning.chat import in_words

NEW = "new"
"""What a client says that wants another conversation."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"


@dataclass(frozen=True)
class Wish:
    """The conversation that a question is to go on with."""

    name: str
    """`new`, an id (`conv_…`), or a name that the client made up, unknown at first."""
    recall: bool | None = None
    """Whether to look for what was said elsewhere; None: as the master is set."""


def shown_id(conversation: UUID) -> str:
    """The id of a conversation in the API."""
    return f"conv_{conversation.hex}"


class Recalled(BaseModel):
    """An exchange that was found by its meaning, in whichever conversation of the same person."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    conversation: UUID
    request: UUID
    score: float = Field(description="Cosine similarity to the question.")
    text: str


class Remembered(BaseModel):
    """What was put before the messages that the client sent."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    conversation: UUID
    system: tuple[dict[str, JsonValue], ...] = Field(
        default=(), description="Instructions of an earlier request, for where this one has none."
    )
    note: str = Field(default="", description="Summary and recalled words, as the model reads it.")
    messages: tuple[dict[str, JsonValue], ...] = Field(
        default=(),
        description="The last exchanges, oldest first; stored with notes where images were.",
    )
    exchanges: tuple[UUID, ...] = Field(default=(), description="Their requests.")
    turns: int = Field(default=0, description="How many exchanges; rounds of tools are one.")
    left_out: int = Field(default=0, description="Older ones that no summary covers.")
    summary: str = ""
    summarised_until: datetime | None = Field(
        default=None, description="When the newest exchange that the summary covers was asked."
    )
    recalled: tuple[Recalled, ...] = ()
    recall: str = Field(
        default="off", description="Whether something was looked for: off, done, or why not."
    )

    def in_words(self) -> Self:
        """As it is stored: each image is with the request that it came with already."""
        return self.model_copy(update={"messages": tuple(map(in_words, self.messages))})
