"""`POST /v1/chat/completions`: accept, then stream or wait."""

import asyncio
import time
from collections.abc import AsyncGenerator
from uuid import UUID

import structlog
from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from master import metrics
from master.api import errors, openai_shapes, sse
from master.api.auth import asker
from master.api.bodies import STRICT_HEADER, WARNING_HEADER, ChatBody, parse_chat
from master.api.documents import CHAT_RESPONSES, chat_body
from master.api.errors import ApiError
from master.api.state import ring, running
from master.api.strict_json import read_json
from master.batches import is_outage
from master.ending import Ending
from master.live import Idle, Interrupted, Item, Live, Reasoning, Status, Text
from master.planning.chat import estimate_chat_tokens
from master.planning.question import Question
from master.planning.strategies import UnknownModel
from master.running import Running
from master.submit import Accepted, Asker, BrokerAway, TooBusy, submit
from queue_schemas.states import RequestState

log = structlog.get_logger(__name__)

router = APIRouter()

TASK_HEADER = "x-millrace-task"
ID_HEADER = "x-millrace-request-id"

_STATUS_OF_STATE = {RequestState.CANCELLED: 409, RequestState.EXPIRED: 504}
_CLIENT_CODES = {"context_length_exceeded": 400, "bad_request": 400, "invalid_request": 400}


@router.post(
    "/v1/chat/completions",
    openapi_extra=chat_body(),
    responses=CHAT_RESPONSES,
    tags=["OpenAI"],
    summary="Answer a chat",
)
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions. `model` is a model or a strategy such as `millrace/split`."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    body = parse_chat(
        await read_json(request), strict=request.headers.get(STRICT_HEADER) in {"1", "true"}
    )
    if master.draining:
        raise errors.server_draining()
    accepted = await _submit(master, body, asker(key, request.headers, body.user), request.headers)
    live = master.streams.open(accepted.request, accepted.plan, dict(accepted.subtasks))
    headers = {ID_HEADER: str(accepted.request)}
    if body.warnings:
        headers[WARNING_HEADER] = "; ".join(body.warnings)
    if body.stream:
        frames = _stream(master, accepted, live, body, _is_open_webui(request.headers))
        return StreamingResponse(
            frames, media_type=sse.MEDIA_TYPE, headers={**sse.HEADERS, **headers}
        )
    return await _whole(request, master, accepted, live, body, headers)


async def _submit(master: Running, body: ChatBody, who: Asker, headers: Headers) -> Accepted:
    question = Question(
        model=body.model,
        messages=body.messages,
        parameters=body.parameters,
        stream=body.stream,
        task=headers.get(TASK_HEADER) or None,
    )
    _check_length(master, body)
    try:
        return await submit(master.submission, question, who)
    except UnknownModel as unknown:
        raise errors.model_not_found(unknown.name, unknown.available) from None
    except TooBusy as busy:
        raise errors.queue_full(busy.model, busy.wait_seconds) from None
    except BrokerAway:
        raise errors.service_unavailable("the message broker does not answer") from None
    except Exception as error:
        if not is_outage(error):
            raise
        log.warning("submit.outage", error=str(error))
        raise errors.service_unavailable("the database does not answer") from error


def _check_length(master: Running, body: ChatBody) -> None:
    """Refuse what cannot fit, rather than let an engine cut it silently."""
    model = master.registry().get(body.model)
    if model is None:
        return
    prompt = estimate_chat_tokens(body.messages)
    wanted = body.parameters.get("max_completion_tokens") or body.parameters.get("max_tokens")
    answer = wanted if isinstance(wanted, int) else 0
    if prompt + answer > model.context_length:
        raise errors.context_length_exceeded(model.context_length, prompt, answer)


def _is_open_webui(headers: Headers) -> bool:
    """Whether status events are understood; other clients would stumble over them."""
    return TASK_HEADER in headers or any(name.startswith("x-openwebui-") for name in headers)


async def _stream(
    master: Running, accepted: Accepted, live: Live, body: ChatBody, statuses: bool
) -> AsyncGenerator[bytes, None]:
    chunks = openai_shapes.Chunks(
        _completion_id(accepted.request),
        body.model,
        int(time.time()),
        include_usage=body.include_usage,
    )
    finished = shown = False
    began = time.monotonic()
    try:
        yield chunks.role()
        if statuses and accepted.ahead:
            yield sse.status(_queue_position(accepted))
        async for item in live.follow(master.settings.keep_alive_seconds):
            if isinstance(item, Text) and not shown:
                shown = True
                metrics.first_text_seconds.observe(time.monotonic() - began)
            if isinstance(item, Ending):
                finished = True
                yield b"".join(_closing(chunks, item, body, statuses))
            elif frame := _frame(chunks, item, statuses):
                yield frame
    except Exception as error:
        log.error("stream.failed", request=str(accepted.request), exc_info=error)
        yield sse.error(errors.server_error())
        yield sse.DONE
    finally:
        master.streams.close(live)
        if not finished and not master.draining:
            master.cancel_soon(accepted.request, accepted.tenant)


def _queue_position(accepted: Accepted) -> str:
    wait = accepted.wait_seconds
    about = f", about {wait:.0f} s" if wait else ""
    return f"Waiting behind {accepted.ahead} others{about}"


def _frame(chunks: openai_shapes.Chunks, item: Item, statuses: bool) -> bytes:
    match item:
        case Text(text):
            return chunks.content(text)
        case Reasoning(text):
            return chunks.reasoning(text)
        case Status(description, done):
            return sse.status(description, done=done) if statuses else b""
        case Idle():
            return sse.PING
        case Interrupted():
            return sse.error(errors.server_draining()) + sse.DONE
        case _:
            return b""


def _closing(
    chunks: openai_shapes.Chunks, end: Ending, body: ChatBody, statuses: bool
) -> list[bytes]:
    """The one terminal event of a stream."""
    frames = [sse.status("Done", done=True)] if statuses else []
    if end.state is not RequestState.COMPLETED:
        return [*frames, sse.error(_api_error(end)), sse.DONE]
    if end.tool_calls:
        frames.append(chunks.tool_calls(end.tool_calls))
    frames.append(chunks.finish(end.finish_reason or "stop", logprobs=end.logprobs))
    # Open WebUI shows usage that it did not ask for; it adds usages up, so once only.
    if body.include_usage or statuses:
        frames.append(chunks.usage(openai_shapes.usage(end.prompt_tokens, end.completion_tokens)))
    return [*frames, sse.DONE]


async def _whole(
    request: Request,
    master: Running,
    accepted: Accepted,
    live: Live,
    body: ChatBody,
    headers: dict[str, str],
) -> Response:
    """Wait for the answer; a client that leaves cancels it."""
    ending: Ending | None = None
    try:
        ending = await _unless_gone(request, live)
    finally:
        master.streams.close(live)
        if ending is None and not master.draining:
            master.cancel_soon(accepted.request, accepted.tenant)
    if ending is None and master.draining:
        raise errors.server_draining()
    if ending is None:
        raise ApiError(499, "client_disconnected", "the client left")
    if ending.state is not RequestState.COMPLETED:
        error = _api_error(ending)
        error.headers |= headers
        raise error
    return JSONResponse(
        openai_shapes.completion(
            id=_completion_id(accepted.request),
            model=body.model,
            created=int(time.time()),
            content=ending.answer,
            finish_reason=ending.finish_reason or "stop",
            usage=openai_shapes.usage(ending.prompt_tokens, ending.completion_tokens),
            reasoning=ending.reasoning,
            tool_calls=ending.tool_calls,
            logprobs=ending.logprobs,
        ),
        headers=headers,
    )


async def _unless_gone(request: Request, live: Live) -> Ending | None:
    """The ending, or None when the client disconnects before it."""
    waiting = asyncio.create_task(live.ended())
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _completion_id(request: UUID) -> str:
    return f"chatcmpl-{request.hex}"


def _api_error(end: Ending) -> ApiError:
    """The error a client gets for a request that has no answer."""
    code = str((end.error or {}).get("code", "failed"))
    message = str((end.error or {}).get("message", "the request failed"))
    status = _STATUS_OF_STATE.get(end.state) or _CLIENT_CODES.get(code, 502)
    return ApiError(status, code, message, headers={"x-should-retry": "false"})
