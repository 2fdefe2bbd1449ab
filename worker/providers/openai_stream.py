"""Reading a stream of OpenAI chat completion chunks. Pure.

Plain dictionaries instead of the SDK's models: a chunk costs several times less, and a worker
with many slots reads thousands of them per second.
"""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import JsonValue
from pydantic_core import from_json

from queue_schemas.messages import Channel
from worker.providers.diagnosis import MALFORMED, TRUNCATED, diagnose, failure
from worker.providers.prefill import EchoFilter
from worker.providers.protocol import Delta, Finish

FINISHED: Final = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
BROKEN: Final = frozenset({"abort", "cancelled", "error"})
"""Finish reasons that mean the answer is not complete; any other strange word means `stop`."""


class Payloads:
    """Bytes as they come from the network to the payloads of `data:` lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The payloads that are complete now."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        return filter(None, map(_payload, lines))

    def rest(self) -> Iterator[bytes]:
        """The payload of a last line without a line end."""
        return self.feed(b"\n")


def _payload(line: bytes) -> bytes:
    if line.startswith(b"data:"):
        return line[5:].strip()
    # llama.cpp names the field `error`; others send an error as a bare JSON line.
    if line.startswith(b"error:"):
        return b'{"error":' + line[6:].strip() + b"}"
    return line.strip() if line.startswith(b'{"error"') else b""


class Answer:
    """What the chunks of one answer add up to."""

    def __init__(self, shown: str) -> None:
        self._echo = EchoFilter(shown)
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[JsonValue]] = {}
        self._usage: dict[str, Any] = {}
        self._reason: str | None = None

    def take(self, payload: bytes) -> list[Delta]:
        """The text in a payload. An empty text is a sign of life while a tool call is written."""
        if payload == b"[DONE]":
            return []
        try:
            chunk = from_json(payload)
            if chunk.get("error") or chunk.get("object") == "error":
                raise _stream_error(chunk)
            if usage := chunk.get("usage"):
                self._usage = usage
            choices = chunk.get("choices")
            return self._choice(choices[0]) if choices else []
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            said = payload[:200].decode(errors="replace")
            raise failure(MALFORMED, f"not a chunk of a chat completion: {said}") from error

    def _choice(self, choice: dict[str, Any]) -> list[Delta]:
        delta = choice.get("delta") or {}
        deltas = []
        if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
            deltas.append(Delta(reasoning, Channel.REASONING))
        if content := delta.get("content"):
            deltas.append(Delta(self._echo.feed(content)))
        if calls := delta.get("tool_calls"):
            for call in calls:
                self._call(call)
            deltas.append(Delta(""))
        if logprobs := choice.get("logprobs"):
            for name, entries in logprobs.items():
                self._logprobs.setdefault(name, []).extend(entries or ())
        self._reason = choice.get("finish_reason") or self._reason
        return deltas

    def _call(self, part: dict[str, Any]) -> None:
        index = part.get("index", len(self._calls))
        empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._calls.setdefault(index, empty)
        call["id"] = part.get("id") or call["id"]
        function = part.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def end(self) -> list[Delta | Finish]:
        """What is left to yield when the connection is through."""
        if self._reason is None or self._reason in BROKEN:
            said = f"finish_reason was {self._reason!r}" if self._reason else "no finish_reason"
            raise failure(TRUNCATED, f"the engine ended before the answer was complete: {said}")
        reason = FINISHED.get(self._reason, "stop")
        finish = Finish(
            finish_reason="tool_calls" if self._calls and reason == "stop" else reason,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
            tool_calls=tuple(self._calls[index] for index in sorted(self._calls)),
            logprobs={**self._logprobs} if self._logprobs else None,
        )
        rest = self._echo.rest()
        return [Delta(rest), finish] if rest else [finish]


def _stream_error(chunk: dict[str, Any]) -> Exception:
    error = chunk.get("error") or chunk
    said = error.get("message") if isinstance(error, dict) else error
    code = error.get("code") if isinstance(error, dict) else None
    text = str(said or error)
    return failure(diagnose(text, code if isinstance(code, int) and code >= 400 else None), text)
