"""An engine that says something else each time it is asked, as engines with a warm cache do."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from pydantic import JsonValue

from queue_schemas.messages import ErrorKind, SubtaskRequest
from queue_schemas.registry import Model
from worker.providers.protocol import Delta, Finish, ProviderError
from worker.providers.scripted import split

BUSY = ProviderError(ErrorKind.TRANSIENT, "engine_busy", "try again")
REFUSED = ProviderError(ErrorKind.PERMANENT, "bad_request", "it does not like this")


@dataclass(frozen=True)
class Turn:
    """One execution: what it says, how fast, and how it ends."""

    text: str
    seconds: float = 0.0
    """Before each word after the first."""
    error: ProviderError | None = None
    hangs: bool = False
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    logprobs: JsonValue = None


class Moody:
    """Takes a turn for each execution; the last one again and again.

    With `shown` it goes on from there with what `goes_on` says, as an engine with prefill does.
    """

    def __init__(self, *turns: Turn, goes_on: str = " and so on") -> None:
        self.asked: list[SubtaskRequest] = []
        self._turns = turns
        self._goes_on = goes_on

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Take a turn."""
        turn = self._turns[min(len(self.asked), len(self._turns) - 1)]
        self.asked.append(subtask)
        text = self._goes_on if subtask.shown else turn.text
        for place, word in enumerate(split(text, None)):
            if place and turn.seconds:
                await asyncio.sleep(turn.seconds)
            yield Delta(word)
        if turn.hangs and not subtask.shown:
            await asyncio.Event().wait()
        if turn.error is not None and not subtask.shown:
            raise turn.error
        yield Finish(
            "tool_calls" if turn.tool_calls else "stop",
            prompt_tokens=3,
            completion_tokens=len(text.split()),
            tool_calls=turn.tool_calls,
            logprobs=turn.logprobs,
        )

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing to close."""


def always(engine: Moody) -> Callable[[Model], Moody]:
    """Makes this engine for every model."""
    return lambda model: engine
