"""The seam between the worker and an inference engine."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from queue_schemas.messages import Channel, ErrorKind, Seam, SubtaskRequest


@dataclass(frozen=True)
class Delta:
    """Some more text."""

    text: str
    channel: Channel = Channel.CONTENT


@dataclass(frozen=True)
class Finish:
    """The engine said that it is done. Always the last item of a completion.

    Token counts are None where the engine gave none; the worker then counts itself and says so.
    """

    finish_reason: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    load_seconds: float = 0.0
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    logprobs: JsonValue = None
    estimated: bool = False
    """Some of the counts are our own: an engine that broke off gave none."""
    seams: tuple[Seam, ...] = ()


@dataclass(eq=False)
class ProviderError(Exception):
    """The engine failed. `code` is a stable word; `message` is for people."""

    kind: ErrorKind
    code: str
    message: str
    retry_after_seconds: float | None = field(default=None)
    seams: tuple[Seam, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Provider(Protocol):
    """An engine that answers one model."""

    def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Yield text as it is generated, then one Finish.

        Closing the generator closes the engine's connection, which is how a generation is
        stopped. When `subtask.shown` is set, yield only what follows it. Raises ProviderError
        and nothing else, except for a bug.
        """

    async def check(self) -> None:
        """Make sure the engine answers and has the model. Raises ProviderError with the remedy."""

    async def aclose(self) -> None:
        """Close connections."""
