"""Asking an engine over HTTP, and what its refusals mean.

The words of an error decide first, then its status: engines agree on the words more than on the
numbers. Nothing is tried again here: who asked decides that.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import httpx2
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from bus import tracing
from bus.tracing import Kind
from master.retrieval.embedders.protocol import EmbeddingError
from queue_schemas.messages import ErrorKind

Diagnosis = tuple[ErrorKind, str]

BUSY: Final = (ErrorKind.TRANSIENT, "engine_busy")
FAULT: Final = (ErrorKind.TRANSIENT, "engine_error")
MALFORMED: Final = (ErrorKind.TRANSIENT, "upstream_malformed")
TIMEOUT: Final = (ErrorKind.TRANSIENT, "engine_timeout")
UNREACHABLE: Final = (ErrorKind.TRANSIENT, "engine_unreachable")
BAD_REQUEST: Final = (ErrorKind.PERMANENT, "bad_request")
MISCONFIGURED: Final = (ErrorKind.PERMANENT, "engine_misconfigured")
NO_MODEL: Final = (ErrorKind.PERMANENT, "model_not_found")
TOO_LONG: Final = (ErrorKind.PERMANENT, "context_length_exceeded")
UNAUTHORIZED: Final = (ErrorKind.PERMANENT, "engine_unauthorized")

ERRORS: Final[Mapping[type[Exception], Diagnosis]] = {
    httpx2.HTTPError: UNREACHABLE,
    httpx2.TimeoutException: TIMEOUT,
    httpx2.ConnectTimeout: UNREACHABLE,
    httpx2.LocalProtocolError: MISCONFIGURED,
    httpx2.UnsupportedProtocol: MISCONFIGURED,
    httpx2.TooManyRedirects: MISCONFIGURED,
    httpx2.DecodingError: MALFORMED,
    httpx2.SSEError: MALFORMED,
    httpx2.InvalidURL: MISCONFIGURED,
}
"""What a call can raise; the most specific class decides."""

_WORDS: Final[tuple[tuple[re.Pattern[str], Diagnosis], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), diagnosis)
    for pattern, diagnosis in (
        (r"context[ _](length|window|size)|(input|inputs|prompt)\b.* (too l|exceed|less than)",
         TOO_LONG),
        (r"model\b.* not found|no such model|model\b.* does not exist", NO_MODEL),
    )
)  # fmt: skip

_STATUS: Final[Mapping[int, Diagnosis]] = {
    401: UNAUTHORIZED,
    403: UNAUTHORIZED,
    404: NO_MODEL,
    408: TIMEOUT,
    413: TOO_LONG,
    425: BUSY,
    429: BUSY,
    502: UNREACHABLE,
    503: BUSY,
    504: TIMEOUT,
}


class Engine:
    """One address, with its key."""

    def __init__(self, url: str, key: str | None = None, seconds: float = 120.0) -> None:
        """`seconds`: silence until a call is given up, with the time to load a model."""
        self.url = url.rstrip("/")
        try:
            self._http = httpx2.AsyncClient(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=httpx2.Timeout(seconds, connect=5.0),
            )
        except tuple(ERRORS) as error:
            raise mapped(error) from error
        if not self._http.base_url.host:
            raise failure(MISCONFIGURED, f"{url!r} is no http:// or https:// address")

    async def post(self, path: str, body: Mapping[str, JsonValue]) -> Any:
        """The answer to a JSON body. Raises EmbeddingError."""
        return await self._ask("POST", path, to_json(body))

    async def get(self, path: str) -> Any:
        """The answer of a path. Raises EmbeddingError."""
        return await self._ask("GET", path, None)

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def _ask(self, method: str, path: str, content: bytes | None) -> Any:
        headers = {"Content-Type": "application/json"}
        try:
            with tracing.span("engine call", Kind.CLIENT, operation="embeddings") as call:
                tracing.inject(headers)
                answer = await self._http.request(method, path, content=content, headers=headers)
                if not answer.is_success:
                    call.fail(str(answer.status_code))
        except tuple(ERRORS) as error:
            raise mapped(error) from error
        if not answer.is_success:
            raise refused(answer.status_code, answer.content)
        try:
            return from_json(answer.content)
        except ValueError as error:
            raise failure(MALFORMED, f"the answer is not JSON: {error}") from error


def mapped(error: Exception) -> EmbeddingError:
    """A library's exception as ours."""
    diagnosis = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    return failure(diagnosis, f"{type(error).__name__}: {error}")


def refused(status: int, body: bytes) -> EmbeddingError:
    """An engine's refusal as ours."""
    text = _said(body)
    return failure(diagnose(text, status), f"the engine answered {status}: {text}")


def diagnose(text: str, status: int) -> Diagnosis:
    """Judge a refusal by its words, then by its status."""
    for pattern, diagnosis in _WORDS:
        if pattern.search(text):
            return diagnosis
    return _STATUS.get(status, FAULT if status >= 500 else BAD_REQUEST)


def failure(diagnosis: Diagnosis, message: str) -> EmbeddingError:
    """The error to raise. Long messages are cut: an engine may send a whole page."""
    kind, code = diagnosis
    return EmbeddingError(kind, code, message[:2000])


def _said(body: bytes) -> str:
    """The message in the envelopes of OpenAI, Ollama and FastAPI, or else the body itself."""
    text = body.decode(errors="replace").strip()
    try:
        found = from_json(text)
    except ValueError:
        return text
    for name in ("error", "detail", "message"):
        if isinstance(found, dict):
            found = found.get(name, found)
    return found if isinstance(found, str) else text
