"""Ollama through its native `/api/chat`; `/v1` ignores `num_ctx` and hides errors in a stream."""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final, cast
from uuid import UUID

import httpx
import ollama
from pydantic import JsonValue

from queue_schemas.messages import Channel, SubtaskRequest
from queue_schemas.registry import Model
from worker.providers.diagnosis import (
    BAD_REQUEST,
    MALFORMED,
    MISCONFIGURED,
    NO_MODEL,
    TIMEOUT,
    TRUNCATED,
    UNREACHABLE,
    Diagnosis,
    diagnose,
    failure,
)
from worker.providers.ollama_payload import chat_payload, load_payload
from worker.providers.prefill import EchoFilter
from worker.providers.protocol import Delta, Finish, ProviderError

NANOSECONDS: Final = 1e9

ERRORS: Final[Mapping[type[Exception], Diagnosis | None]] = {
    ollama.ResponseError: None,  # judged by its words and status
    ollama.RequestError: BAD_REQUEST,
    ConnectionError: UNREACHABLE,  # the library's own way to say "connection refused"
    json.JSONDecodeError: MALFORMED,
    httpx.HTTPError: UNREACHABLE,
    httpx.HTTPStatusError: UNREACHABLE,
    httpx.RequestError: UNREACHABLE,
    httpx.TransportError: UNREACHABLE,
    httpx.TimeoutException: TIMEOUT,
    httpx.ConnectTimeout: UNREACHABLE,
    httpx.ReadTimeout: TIMEOUT,
    httpx.WriteTimeout: TIMEOUT,
    httpx.PoolTimeout: TIMEOUT,
    httpx.NetworkError: UNREACHABLE,
    httpx.ConnectError: UNREACHABLE,
    httpx.ReadError: TRUNCATED,
    httpx.WriteError: UNREACHABLE,
    httpx.CloseError: TRUNCATED,
    httpx.ProtocolError: TRUNCATED,
    httpx.LocalProtocolError: MISCONFIGURED,
    httpx.RemoteProtocolError: TRUNCATED,
    httpx.ProxyError: UNREACHABLE,
    httpx.UnsupportedProtocol: MISCONFIGURED,
    httpx.DecodingError: MALFORMED,
    httpx.TooManyRedirects: MISCONFIGURED,
    httpx.InvalidURL: MISCONFIGURED,
}
"""Every exception that the library can raise; the most specific class decides."""

_CAUGHT: Final = tuple(ERRORS)


class _Chat(ollama.AsyncClient):
    """The library's client with a chat call that sends our own body and gives plain lines.

    `AsyncClient.chat` has no `truncate`, loses nested properties of tool schemas, and opens an
    image whose base64 happens to be the name of a file here.
    """

    async def lines(self, payload: Mapping[str, JsonValue]) -> AsyncGenerator[dict[str, Any], None]:
        # The library's annotation says iterator; only as a generator can it be closed.
        found: AsyncIterator[dict[str, Any]] = await self._request(
            dict[str, Any], "POST", "/api/chat", json=payload, stream=True
        )
        return cast(AsyncGenerator[dict[str, Any], None], found)


class Ollama:
    """One Ollama server and one of its models."""

    def __init__(self, model: Model) -> None:
        self._model = model
        key = os.environ.get(model.api_key_env) if model.api_key_env else None
        self._client = _Chat(
            host=model.endpoint,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            timeout=httpx.Timeout(None, connect=5.0),  # the worker has the deadlines
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=model.slots),
        )

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Stream one chat."""
        answer = _Answer(subtask)
        try:
            async with aclosing(
                await self._client.lines(chat_payload(self._model, subtask))
            ) as lines:
                async for line in lines:
                    for delta in answer.take(line):
                        yield delta
        except _CAUGHT as error:
            raise mapped(error) from error
        for item in answer.end():
            yield item

    async def check(self) -> None:
        """Find the model and load it, so that the first question does not wait for that."""
        name = self._model.name_at_engine
        try:
            await self._client.show(name)
            async with aclosing(await self._client.lines(load_payload(self._model))) as lines:
                async for _ in lines:
                    pass
        except _CAUGHT as error:
            raise self._with_remedy(mapped(error)) from error

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    def _with_remedy(self, error: ProviderError) -> ProviderError:
        name, where = self._model.name_at_engine, self._model.endpoint or "its default address"
        remedies = {
            NO_MODEL[1]: f"the model is missing; get it with `ollama pull {name}`",
            UNREACHABLE[1]: f"Ollama does not answer at {where}; start it with `ollama serve`",
        }
        remedy = remedies.get(error.code)
        message = f"{remedy} ({error.message})" if remedy else error.message
        return ProviderError(error.kind, error.code, message, error.retry_after_seconds)


def make(model: Model) -> Ollama:
    """The provider of a registry entry."""
    return Ollama(model)


def mapped(error: Exception) -> ProviderError:
    """A library's exception as ours."""
    diagnosis = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    if isinstance(error, ollama.ResponseError):
        status = error.status_code if error.status_code > 0 else None
        return failure(diagnose(str(error.error), status), str(error.error))
    return failure(diagnosis or UNREACHABLE, f"{type(error).__name__}: {error}")


class _Answer:
    """What the lines of one answer add up to."""

    def __init__(self, subtask: SubtaskRequest) -> None:
        self._subtask = subtask.subtask
        self._echo = EchoFilter(subtask.shown)
        self._calls: list[dict[str, JsonValue]] = []
        self._logprobs: list[JsonValue] = []
        self._last: dict[str, Any] | None = None

    def take(self, line: dict[str, Any]) -> list[Delta]:
        """The text in a line."""
        message = line.get("message") or {}
        deltas = []
        if thinking := message.get("thinking"):
            deltas.append(Delta(thinking, Channel.REASONING))
        if content := message.get("content"):
            deltas.append(Delta(self._echo.feed(content)))
        for call in message.get("tool_calls") or ():
            self._calls.append(_tool_call(call, self._subtask, len(self._calls)))
        self._logprobs.extend(line.get("logprobs") or ())
        if line.get("done"):
            self._last = line
        return deltas

    def end(self) -> list[Delta | Finish]:
        """What is left to yield when the connection is through."""
        last = self._last
        reason = last.get("done_reason") if last else None
        if last is None or reason not in {"stop", "length"}:
            said = f"done_reason was {reason!r}" if last else "there was no done:true"
            raise failure(TRUNCATED, f"Ollama ended the answer before it was complete: {said}")
        finish = Finish(
            finish_reason="tool_calls" if self._calls and reason == "stop" else reason,
            prompt_tokens=last.get("prompt_eval_count"),
            completion_tokens=last.get("eval_count"),
            load_seconds=last.get("load_duration", 0) / NANOSECONDS,
            tool_calls=tuple(self._calls),
            logprobs={"content": self._logprobs} if self._logprobs else None,
        )
        rest = self._echo.rest()
        return [Delta(rest), finish] if rest else [finish]


def _tool_call(call: dict[str, Any], subtask: UUID, index: int) -> dict[str, JsonValue]:
    function = call.get("function") or {}
    return {
        "id": call.get("id") or f"call_{subtask.hex[:12]}_{index}",
        "type": "function",
        "function": {
            "name": function.get("name", ""),
            "arguments": json.dumps(function.get("arguments") or {}, ensure_ascii=False),
        },
    }
