"""Every error a client can get, in OpenAI's envelope.

`raise errors.model_not_found(...)` anywhere below a route. The status, the code and the headers
are chosen with the retry behaviour of the OpenAI SDKs in mind: they retry 408, 409, 429 and 5xx
unless `x-should-retry` says otherwise, and obey `Retry-After` up to two minutes.
"""

import math
import random
import re
from collections.abc import Iterable, Mapping
from http.client import responses as phrases
from uuid import UUID

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from master.api.request_ids import REQUEST_ID_HEADER, RequestIds, request_id
from master.api.unread_bodies import UnreadBodies

LONGEST_RETRY_AFTER_SECONDS = 120
"""The OpenAI SDK gives up at once when it is told to wait longer."""

_LISTED_MODELS = 50
_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ApiError(Exception):
    """An answer other than success. `param` names the offending field as a path."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        type: str | None = None,  # noqa: A002  the envelope's own word
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.type = type or type_of(status)
        self.headers = dict(headers or {})

    def envelope(self) -> dict[str, JsonValue]:
        """The body of the answer; also the payload of an error frame in a stream."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def __repr__(self) -> str:
        return f"ApiError({self.status}, {self.code!r}, {self.message!r}, param={self.param!r})"


def type_of(status: int) -> str:
    """The envelope's `type` that goes with a status."""
    if status >= 500:
        return "server_error"
    special = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return special.get(status, "invalid_request_error")


# --- the body -----------------------------------------------------------------------------------


def invalid_json(message: str) -> ApiError:
    """The body is not JSON, or not an object."""
    return ApiError(400, "invalid_json", message)


def invalid_encoding(message: str = "the body must be UTF-8 without a byte order mark") -> ApiError:
    """The body's bytes are not plain UTF-8."""
    return ApiError(400, "invalid_encoding", message)


def invalid_value(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A field has a value that is not accepted; the message says what is."""
    return ApiError(400, code, message, param=param)


def request_too_large(limit: int, what: str = "the body", param: str | None = None) -> ApiError:
    """More bytes than this server reads."""
    message = f"{what} is larger than {limit} bytes"
    return ApiError(413, "request_too_large", message, param=param)


def request_timeout(seconds: float) -> ApiError:
    """The body came too slowly."""
    return ApiError(408, "request_timeout", f"the body did not arrive within {seconds:g} s")


def unsupported_media_type(message: str) -> ApiError:
    """Content-Type or Content-Encoding is not one this route reads."""
    return ApiError(415, "unsupported_media_type", message)


def context_length_exceeded(limit: int, prompt: int, completion: int = 0) -> ApiError:
    """Prompt and answer do not fit into the model's context. Counts are tokens."""
    message = (
        f"this model's context is {limit} tokens, but the request needs {prompt + completion}: "
        f"{prompt} in the messages and {completion} for the answer"
    )
    return ApiError(400, "context_length_exceeded", message, param="messages")


# --- who asks, and for what ---------------------------------------------------------------------


def invalid_api_key() -> ApiError:
    """No key, no such key, or a revoked one: on purpose always the same words."""
    message = "the API key is missing or not valid; send it as `Authorization: Bearer mr-…`"
    return ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def permission_denied(scope: str) -> ApiError:
    """The key is valid and lacks the scope."""
    return ApiError(403, "permission_denied", f"this API key does not have the scope {scope!r}")


def not_found(what: str, param: str | None = None) -> ApiError:
    """No such thing, or it is somebody else's: the same answer."""
    return ApiError(404, "not_found", f"{what} does not exist", param=param)


def model_not_found(name: str, available: Iterable[str]) -> ApiError:
    """The model is not served here; the message lists those that are."""
    names = list(available)
    listed = ", ".join(names[:_LISTED_MODELS]) or "none"
    more = f" and {len(names) - _LISTED_MODELS} more" if len(names) > _LISTED_MODELS else ""
    message = f"the model {_quoted(name)} does not exist; available: {listed}{more}"
    return ApiError(404, "model_not_found", message, param="model")


# --- the same request again ---------------------------------------------------------------------


def idempotency_key_reused() -> ApiError:
    """The key belongs to another body. 422, because the SDKs would repeat a 409 for nothing."""
    message = "this Idempotency-Key was used with another body"
    return ApiError(422, "idempotency_key_reused", message, param="Idempotency-Key")


def request_in_progress(retry_after_seconds: float = 2.0) -> ApiError:
    """The first request with this Idempotency-Key has not ended yet."""
    message = "the request with this Idempotency-Key is still running"
    headers = retry_headers(retry_after_seconds)
    return ApiError(409, "request_in_progress", message, headers=headers)


def stream_expired() -> ApiError:
    """The stream is too old to be resumed; its result may still be stored."""
    return ApiError(410, "stream_expired", "this stream can no longer be resumed")


# --- too much, or not now -----------------------------------------------------------------------


def queue_full(model: str, retry_after_seconds: float = 5.0) -> ApiError:
    """The model's backlog is at its bound; nothing was accepted."""
    message = f"too many requests are waiting for {_quoted(model)}; try again later"
    return ApiError(429, "queue_full", message, headers=retry_headers(retry_after_seconds))


def rate_limited(message: str, retry_after_seconds: float) -> ApiError:
    """This key or end user has used up its share."""
    headers = retry_headers(retry_after_seconds)
    return ApiError(429, "rate_limit_exceeded", message, headers=headers)


def service_unavailable(message: str, retry_after_seconds: float = 5.0) -> ApiError:
    """Something that this server needs is down; nothing was accepted."""
    headers = retry_headers(retry_after_seconds)
    return ApiError(503, "service_unavailable", message, headers=headers)


def server_draining() -> ApiError:
    """This replica shuts down. An accepted request goes on; another replica can be asked for it."""
    message = "this server is shutting down; the request itself goes on"
    return ApiError(503, "server_draining", message, headers=retry_headers(1.0))


def slow_consumer(request: UUID) -> ApiError:
    """The client took nothing of its stream for too long. Only the stream ends by that."""
    message = (
        "the stream was cut: its client did not read it; the request itself goes on, "
        f"and /v1/requests/{request} has its answer"
    )
    return ApiError(408, "slow_consumer", message, type="server_error")


def server_error(message: str = "the server had an error; see its log") -> ApiError:
    """A bug. Says nothing about its cause, and that trying again is useless."""
    return ApiError(500, "internal_error", message, headers={"x-should-retry": "false"})


def retry_headers(seconds: float) -> dict[str, str]:
    """`Retry-After` with up to half of jitter on top, so that not everybody comes at once."""
    wait = min(max(seconds, 0.1) * random.uniform(1.0, 1.5), LONGEST_RETRY_AFTER_SECONDS)
    return {
        "Retry-After": str(math.ceil(wait)),
        "retry-after-ms": str(math.ceil(wait * 1000)),
        "x-should-retry": "true",
    }


def _quoted(name: str) -> str:
    return ascii(name if len(name) <= 200 else name[:200] + "…")


# --- from exceptions to answers -----------------------------------------------------------------


def response(error: ApiError) -> Response:
    """The HTTP answer of an error. Always JSON, whatever the client accepts."""
    return JSONResponse(error.envelope(), status_code=error.status, headers=error.headers)


def install(app: FastAPI) -> None:
    """Answer every exception in the envelope, and give every request an id."""
    app.add_middleware(UnreadBodies)
    app.add_middleware(RequestIds, answer_bug=_answer_bug)
    app.exception_handler(ApiError)(_on_api_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(ClientDisconnect)(_on_disconnect)
    app.exception_handler(Exception)(_on_bug)


async def _on_api_error(request: Request, error: ApiError) -> Response:
    return response(error)


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    status = error.status_code
    if status < 200 or status in {204, 304}:  # these must not have a body
        return Response(status_code=status, headers=error.headers)
    phrase = phrases.get(status, "Error")
    said_more = error.detail != phrase
    message = str(error.detail) if said_more else f"{request.url.path}: {phrase.lower()}"
    code = re.sub(r"[^a-z0-9]+", "_", phrase.lower())
    return response(ApiError(status, code, message, headers=error.headers))


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    where, *path = [str(part) for part in first["loc"]]
    param = ".".join(path) or where
    return response(invalid_value(f"{param}: {first['msg']}", param))


async def _on_disconnect(request: Request, error: ClientDisconnect) -> Response:
    # Nobody reads this answer; without it, a client that leaves would be logged as a bug.
    return response(ApiError(400, "client_disconnected", "the client left before the body ended"))


async def _on_bug(request: Request, error: Exception) -> Response:
    """What was raised outside of the middleware, or after a stream had begun."""
    answer = _answer_bug(request, error)
    answer.headers[REQUEST_ID_HEADER] = request_id(request.scope)
    return answer


def _answer_bug(request: Request, error: Exception) -> Response:
    _log.error(
        "request.crashed",
        request_id=request_id(request.scope),
        method=request.method,
        path=request.url.path,
        exc_info=error,
    )
    return response(server_error())
