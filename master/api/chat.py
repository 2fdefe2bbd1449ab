"""`POST /v1/chat/completions`: accept, then stream or wait."""

import time
from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from master.api import citing, errors, openai_shapes, sse
from master.api.auth import asker
from master.api.bodies import STRICT_HEADER, WARNING_HEADER, ChatBody, may_train, parse_chat
from master.api.following import error_of, wait
from master.api.messages import TASK_HEADER, message_of
from master.api.openapi import CHAT_RESPONSES, chat_body
from master.api.repeating import accept_once, identity_of, memory_in
from master.api.state import ring, running
from master.api.streaming import Dialect, EventStream
from master.api.strict_json import read_json
from master.ending import Ending
from master.live import Idle, Interrupted, Item, Live, Reasoning, Status, Text
from master.planning.plan import Source
from master.planning.question import Question
from master.planning.remembered import shown_id
from master.running import Running
from master.submit import Accepted
from queue_schemas.states import RequestState

router = APIRouter()

ID_HEADER = "x-millrace-request-id"
CACHE_HEADER = "x-millrace-cache"
CONVERSATION_HEADER = "x-millrace-conversation"


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
    raw = await read_json(request)
    body = parse_chat(raw, strict=request.headers.get(STRICT_HEADER) in {"1", "true"})
    identity = identity_of(request.headers, body.metadata, raw)
    if master.draining:
        raise errors.server_draining()
    who = asker(key, request.headers, body.user)
    question = _question(body, request.headers)
    seconds = master.settings.cache_seconds if body.cache_seconds is None else body.cache_seconds
    # What is said in a conversation depends on what was said before.
    memory = None if body.wish else await memory_in(master, question, who, seconds)
    accepted, live = await accept_once(
        master, question, who, identity, memory, message_of(request.headers), body.wish
    )
    headers = {ID_HEADER: str(accepted.request)}
    if accepted.conversation is not None:
        headers[CONVERSATION_HEADER] = shown_id(accepted.conversation)
    if memory is not None:
        headers[CACHE_HEADER] = "hit" if accepted.cached else "miss"
    if body.warnings:
        headers[WARNING_HEADER] = "; ".join(body.warnings)
    if body.stream:
        words = _words(accepted, live, body, statuses=_is_open_webui(request.headers))
        return EventStream(
            master, live, accepted.tenant, words, headers=headers, began=time.monotonic()
        )
    return await _whole(request, master, accepted, live, body, headers)


def _question(body: ChatBody, headers: Headers) -> Question:
    return Question(
        model=body.model,
        messages=body.messages,
        parameters=body.parameters,
        stream=body.stream,
        task=headers.get(TASK_HEADER) or None,
        retrieval=body.retrieval,
        training=may_train(body.metadata),
    )


def _is_open_webui(headers: Headers) -> bool:
    """Whether status events are understood; other clients would stumble over them."""
    return TASK_HEADER in headers or any(name.startswith("x-openwebui-") for name in headers)


def _words(accepted: Accepted, live: Live, body: ChatBody, *, statuses: bool) -> Dialect:
    """OpenAI's chunks, with status events for Open WebUI."""
    chunks = openai_shapes.Chunks(
        _completion_id(accepted.request),
        body.model,
        int(time.time()),
        include_usage=body.include_usage,
    )

    known = {source.number for source in accepted.plan.given}

    def show(item: Item) -> tuple[bytes, ...]:
        if isinstance(item, Ending):
            found = live.plan.given
            later = [source for source in found if statuses and source.number not in known]
            sources = () if statuses else found
            closing = _closing(chunks, item, body, sources, statuses=statuses)
            return (citing.open_webui(later) + b"".join(closing),)
        return (_frame(chunks, item, statuses),)

    waits = sse.status(_queue_position(accepted)) if statuses and accepted.ahead else b""
    shown = citing.open_webui(accepted.plan.given) if statuses else b""
    return Dialect(chunks.role() + waits + shown, show, sse.failure)


def _queue_position(accepted: Accepted) -> str:
    seconds = accepted.wait_seconds
    about = f", about {seconds:.0f} s" if seconds else ""
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
            return sse.failure(errors.server_draining())
        case _:
            return b""


def _closing(
    chunks: openai_shapes.Chunks,
    end: Ending,
    body: ChatBody,
    sources: Sequence[Source],
    *,
    statuses: bool,
) -> list[bytes]:
    """The one terminal event of a stream."""
    frames = [sse.status("Done", done=True)] if statuses else []
    if end.state is not RequestState.COMPLETED:
        return [*frames, sse.failure(error_of(end))]
    if end.tool_calls:
        frames.append(chunks.tool_calls(end.tool_calls))
    if sources:
        cited = citing.url_citations(end.answer or "", sources)
        frames.append(chunks.sources(cited, citing.listed(sources)))
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
    try:
        ending = await wait(master, request, live, headers)
    finally:
        master.leave(live, accepted.tenant)
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
            annotations=citing.url_citations(ending.answer or "", live.plan.given),
            sources=citing.listed(live.plan.given),
        ),
        headers=headers,
    )


def _completion_id(request: UUID) -> str:
    return f"chatcmpl-{request.hex}"
