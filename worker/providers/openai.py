"""Any engine that speaks OpenAI's chat completions: llama.cpp, LocalAI, vLLM, hosted ones.

The SDK says how an engine is reached (address, headers, list of models, words of its errors), and
chats go past it: it looks at every field of a request again, which was 1.1 of the 2.0 ms of CPU
time that a chat of one chunk cost the worker, and 0.8 ms of the time to its first token.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import httpx2
import openai
from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import from_json, to_json

from queue_schemas.messages import SubtaskRequest
from queue_schemas.registry import Model
from worker.providers.diagnosis import (
    BAD_REQUEST,
    BUSY,
    FAULT,
    MALFORMED,
    MISCONFIGURED,
    NO_MODEL,
    TIMEOUT,
    TRUNCATED,
    UNAUTHORIZED,
    UNREACHABLE,
    Diagnosis,
    diagnose,
    failure,
)
from worker.providers.openai_stream import Answer, Payloads
from worker.providers.prefill import prefilled
from worker.providers.protocol import Delta, Finish, ProviderError

ERRORS: Final[Mapping[type[Exception], Diagnosis | None]] = {
    openai.OpenAIError: FAULT,
    openai.APIError: FAULT,
    openai.APIStatusError: None,  # judged by its words and status, and so are those below
    openai.BadRequestError: None,
    openai.AuthenticationError: None,
    openai.OAuthError: UNAUTHORIZED,
    openai.PermissionDeniedError: None,
    openai.NotFoundError: None,
    openai.ConflictError: None,
    openai.UnprocessableEntityError: None,
    openai.RateLimitError: None,
    openai.InternalServerError: None,
    openai.APIConnectionError: UNREACHABLE,
    openai.APITimeoutError: TIMEOUT,
    openai.APIResponseValidationError: MALFORMED,
    openai.LengthFinishReasonError: TRUNCATED,
    openai.ContentFilterFinishReasonError: BAD_REQUEST,
    openai.InvalidWebhookSignatureError: MISCONFIGURED,
    openai.WebSocketConnectionClosedError: TRUNCATED,
    openai.WebSocketQueueFullError: BUSY,
    # Chats go past the SDK, so its transport's own exceptions come through.
    httpx2.HTTPError: UNREACHABLE,
    httpx2.HTTPStatusError: UNREACHABLE,
    httpx2.RequestError: UNREACHABLE,
    httpx2.TransportError: UNREACHABLE,
    httpx2.TimeoutException: TIMEOUT,
    httpx2.ConnectTimeout: UNREACHABLE,
    httpx2.ReadTimeout: TIMEOUT,
    httpx2.WriteTimeout: TIMEOUT,
    httpx2.PoolTimeout: TIMEOUT,
    httpx2.NetworkError: UNREACHABLE,
    httpx2.ConnectError: UNREACHABLE,
    httpx2.ReadError: TRUNCATED,
    httpx2.WriteError: UNREACHABLE,
    httpx2.CloseError: TRUNCATED,
    httpx2.ProtocolError: TRUNCATED,
    httpx2.LocalProtocolError: MISCONFIGURED,
    httpx2.RemoteProtocolError: TRUNCATED,
    httpx2.ProxyError: UNREACHABLE,
    httpx2.UnsupportedProtocol: MISCONFIGURED,
    httpx2.DecodingError: MALFORMED,
    httpx2.TooManyRedirects: MISCONFIGURED,
    httpx2.InvalidURL: MISCONFIGURED,
    httpx2.SSEError: MALFORMED,
}
"""Every exception that the libraries can raise; the most specific class decides."""

_CAUGHT: Final = tuple(ERRORS)


class EngineOptions(BaseModel):
    """A model's `options` in the registry: sent with every call, unless a client says otherwise."""

    model_config = ConfigDict(frozen=True, extra="allow")

    prefill: dict[str, JsonValue] = {
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    """Sent when the answer goes on from shown text. vLLM needs these, others ignore them."""


class OpenAI:
    """One engine and one of its models."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._options = EngineOptions.model_validate(model.options)
        self._key = os.environ.get(model.api_key_env) if model.api_key_env else None
        self._http = openai.DefaultAsyncHttpxClient(
            timeout=httpx2.Timeout(None, connect=5.0),  # the worker has the deadlines
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=model.slots),
        )
        self._client = openai.AsyncOpenAI(
            base_url=model.endpoint,
            api_key=self._key or "none",  # most engines want no key, but the SDK does
            max_retries=0,  # the master retries; two loops would multiply
            http_client=self._http,
        )
        self._chats = self._client.base_url.join("chat/completions")
        given = {**self._client.default_headers, **self._client.auth_headers}
        self._headers = {name: value for name, value in given.items() if isinstance(value, str)}

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Stream one chat completion."""
        payloads, answer = Payloads(), Answer(subtask.shown)
        try:
            body = to_json(self._body(subtask))
            asking = self._http.stream("POST", self._chats, content=body, headers=self._headers)
            async with asking as response:
                if not response.is_success:
                    raise await _refusal(response)
                async for received in response.aiter_bytes():
                    for payload in payloads.feed(received):
                        for delta in answer.take(payload):
                            yield delta
        except _CAUGHT as error:
            raise mapped(error) from error
        for payload in payloads.rest():
            for delta in answer.take(payload):
                yield delta
        for item in answer.end():
            yield item

    def _body(self, subtask: SubtaskRequest) -> dict[str, JsonValue]:
        asked = subtask.parameters
        body: dict[str, JsonValue] = {"seed": subtask.seed}
        body.update(self._options.model_extra or {})
        if "max_completion_tokens" not in asked:
            body["max_tokens"] = self._model.max_output_tokens
        body.update(asked)
        if subtask.shown:
            body.update(self._options.prefill)
        body.update({"stream": True, "stream_options": {"include_usage": True}})
        body.update({"model": self._model.name_at_engine, "messages": list(prefilled(subtask))})
        return body

    async def check(self) -> None:
        """Ask the engine for its models."""
        wanted = self._model
        if wanted.api_key_env and not self._key:
            said = f"set the environment variable {wanted.api_key_env} to the engine's key"
            raise failure(UNAUTHORIZED, said)
        try:
            found = {model.id async for model in self._client.models.list()}
        except openai.NotFoundError:
            return  # it answers, and has no list to look in
        except _CAUGHT as error:
            raise self._with_remedy(mapped(error)) from error
        if found and wanted.name_at_engine not in found:
            some = ", ".join(sorted(found)[:10])
            said = f"the engine has no {wanted.name_at_engine!r}; set engine_model to one of {some}"
            raise failure(NO_MODEL, said)

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.close()

    def _with_remedy(self, error: ProviderError) -> ProviderError:
        if error.code != UNREACHABLE[1]:
            return error
        said = f"no engine answers at {self._client.base_url}; start it or correct `endpoint`"
        return ProviderError(error.kind, error.code, f"{said} ({error.message})")


async def _refusal(response: httpx2.Response) -> openai.APIStatusError:
    """What the SDK raises for such an answer."""
    text = (await response.aread()).decode(errors="replace").strip()
    try:
        body = from_json(text)
    except ValueError:
        body = text
    error = body.get("error", body) if isinstance(body, dict) else body
    said = error.get("message") if isinstance(error, dict) else error
    message = f"Error code: {response.status_code} - {said or text}"
    return openai.APIStatusError(message, response=response, body=error)


def make(model: Model) -> OpenAI:
    """The provider of a registry entry."""
    return OpenAI(model)


def mapped(error: Exception) -> ProviderError:
    """A library's exception as ours."""
    diagnosis = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    if diagnosis is None and isinstance(error, openai.APIStatusError):
        return _refused(error)
    return failure(diagnosis or FAULT, f"{type(error).__name__}: {error}")


def _refused(error: openai.APIStatusError) -> ProviderError:
    status, text = error.status_code, error.message
    if status in {400, 422} and "stream_options" in text:
        said = f"the engine refuses stream_options.include_usage, which the bill needs: {text}"
        return failure((MISCONFIGURED[0], "stream_options_unsupported"), said)
    if error.code == "insufficient_quota":
        return failure((UNAUTHORIZED[0], "engine_quota_exceeded"), text)
    return failure(diagnose(text, status), text, _seconds(error.response.headers))


def _seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds; the form with a date is not worth a clock comparison."""
    value = headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None
