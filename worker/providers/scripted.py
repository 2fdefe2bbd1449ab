"""An engine that follows a script: for tests, demonstrations and load measurements.

The script is the model's `options` in the registry. The same subtask gets the same text and the
same faults every time.
"""

import asyncio
import os
import random
import re
from collections.abc import AsyncGenerator, Iterator
from enum import StrEnum
from itertools import cycle, islice
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from queue_schemas.messages import Channel, ErrorKind, SubtaskRequest
from queue_schemas.registry import Model
from worker.providers.diagnosis import TRUNCATED, failure
from worker.providers.prompt import question_of, text_of
from worker.providers.protocol import Delta, Finish, ProviderError

_TOKEN: Final = re.compile(r"\s*\S+|\s+$")
_FIELD: Final = re.compile(r"\{(prompt|step|model)\}")
_EXIT_CODE: Final = 137
"""As if the kernel had killed it for its memory."""


class FaultKind(StrEnum):
    """How a script lets a generation go wrong."""

    FAIL = "fail"
    """Raise the error `error_kind`, `code`, `message`."""
    HANG = "hang"
    """Say nothing any more."""
    TRUNCATE = "truncate"
    """End without a finish, as an engine whose connection was cut."""
    CRASH = "crash"
    """End the whole process at once."""
    SLOW = "slow"
    """Take `seconds` before every further token."""
    BUG = "bug"
    """Raise something that no provider may raise."""


class Fault(BaseModel):
    """When and how to go wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    attempts: frozenset[int] = Field(default=frozenset(), description="Empty: every attempt.")
    contains: str = Field(default="", description="Only when the conversation contains this.")
    probability: float = Field(default=1.0, ge=0, le=1)
    after_tokens: int = Field(default=0, ge=0)
    error_kind: ErrorKind = ErrorKind.TRANSIENT
    code: str = "engine_busy"
    message: str = "the script says so"
    retry_after_seconds: float | None = None
    seconds: float = Field(default=1.0, ge=0)


class Rule(BaseModel):
    """What to answer when the conversation contains something. The first rule that fits counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contains: str
    text: str = ""
    tool_calls: tuple[dict[str, JsonValue], ...] = ()


class Script(BaseModel):
    """The whole script."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str = Field(
        default="{model} answers {step}: {prompt}",
        description="May contain {prompt}, {step} and {model}.",
    )
    reasoning: str = ""
    tokens: int | None = Field(
        default=None, ge=0, description="Repeat or cut the text to so many words."
    )
    tokens_per_second: float = Field(default=0.0, ge=0, description="0: as fast as possible.")
    first_token_seconds: float = Field(default=0.0, ge=0)
    rules: tuple[Rule, ...] = ()
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    counts: bool = Field(default=True, description="Whether it reports token counts.")


class Scripted:
    """Follows a script."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._script = Script.model_validate(model.options)
        self._default = Rule(contains="", text=self._script.text)

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Say the text, token by token, and go wrong where the script says so."""
        script, answer = self._script, self._answer(subtask)
        count = script.tokens if answer is self._default else None
        tokens = list(split(_fill(answer.text, subtask), count))
        limit = _limit(subtask)
        fault = self._fault(subtask)
        began = asyncio.get_running_loop().time() + script.first_token_seconds
        produced = 0
        for channel, token in self._say(tokens[:limit], subtask.shown):
            if fault and produced >= fault.after_tokens:
                await _go_wrong(fault)
            await self._pace(began, produced)
            produced += 1
            yield Delta(token, channel)
        if fault and fault.kind is not FaultKind.SLOW:
            await _go_wrong(fault)
        await self._pace(began, produced)
        reason = "tool_calls" if answer.tool_calls else "stop"
        yield Finish(
            finish_reason="length" if limit is not None and limit < len(tokens) else reason,
            prompt_tokens=_prompt_tokens(subtask) if script.counts else None,
            completion_tokens=produced if script.counts else None,
            tool_calls=answer.tool_calls,
        )

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def _answer(self, subtask: SubtaskRequest) -> Rule:
        said = _conversation(subtask)
        fitting = (rule for rule in self._script.rules if rule.contains in said)
        return next(fitting, self._default)

    def _say(self, tokens: list[str], shown: str) -> Iterator[tuple[Channel, str]]:
        if not shown:
            for word in split(self._script.reasoning, None):
                yield Channel.REASONING, word
        skip = len(shown)
        for token in tokens:
            rest, skip = token[skip:], max(0, skip - len(token))
            if rest:
                yield Channel.CONTENT, rest

    def _fault(self, subtask: SubtaskRequest) -> Fault | None:
        for index, fault in enumerate(self._script.faults):
            if fault.attempts and subtask.attempt not in fault.attempts:
                continue
            if fault.contains and fault.contains not in _conversation(subtask):
                continue
            dice = random.Random(f"{self._script.seed}/{subtask.seed}/{subtask.attempt}/{index}")
            if dice.random() < fault.probability:
                return fault
        return None

    async def _pace(self, began: float, produced: int) -> None:
        """Wait until this token is due. Due times are absolute, so pauses do not add up."""
        rate = self._script.tokens_per_second
        due = began + (produced / rate if rate else 0.0)
        wait = due - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)


def make(model: Model) -> Scripted:
    """The provider of a registry entry."""
    return Scripted(model)


def split(text: str, count: int | None) -> Iterator[str]:
    """The words of a text with the space before them; repeated or cut to `count` of them."""
    words = _TOKEN.findall(text)
    if count is None or not words:
        return iter(words)
    again = [word if word[0].isspace() else f" {word}" for word in words]
    return islice((word for part in (words, cycle(again)) for word in part), count)


async def _go_wrong(fault: Fault) -> None:
    match fault.kind:
        case FaultKind.FAIL:
            raise ProviderError(
                fault.error_kind, fault.code, fault.message, fault.retry_after_seconds
            )
        case FaultKind.HANG:
            await asyncio.Event().wait()
        case FaultKind.TRUNCATE:
            raise failure(TRUNCATED, "the script cut the answer off")
        case FaultKind.CRASH:
            os._exit(_EXIT_CODE)
        case FaultKind.SLOW:
            await asyncio.sleep(fault.seconds)
        case FaultKind.BUG:
            raise RuntimeError(fault.message)


def _fill(template: str, subtask: SubtaskRequest) -> str:
    values = {
        "prompt": question_of(subtask.messages),
        "step": subtask.step,
        "model": subtask.model,
    }
    # One pass, so that braces within the prompt stay what they are.
    return _FIELD.sub(lambda found: values[found[1]], template)


def _conversation(subtask: SubtaskRequest) -> str:
    return "\n".join(text_of(message.get("content")) for message in subtask.messages)


def _prompt_tokens(subtask: SubtaskRequest) -> int:
    return len(_conversation(subtask).split())


def _limit(subtask: SubtaskRequest) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = subtask.parameters.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None
