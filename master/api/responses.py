"""`/v1/responses`: OpenAI's Responses API; any replica can show or resume what any accepted.

A stream of a background response may break at any time: `GET …?stream=true&starting_after=N` goes
on after the event with that number, wherever it is asked.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from master.api import errors, outages, response_shapes, sse
from master.api.accepting import accept
from master.api.answers import DeletedResponse, ModelResponse
from master.api.auth import asker
from master.api.bodies import (
    STRICT_HEADER,
    WARNING_HEADER,
    ChatBody,
    may_train,
    parse_chat,
    parsed,
    unknown_fields,
    warn_of,
)
from master.api.conversing import undone, within
from master.api.following import wait
from master.api.openapi import RESPONSE_RESPONSES, request_body, streamed, success
from master.api.response_events import Events
from master.api.response_shapes import Subject
from master.api.responses_schema import Message, ResponsesRequest
from master.api.state import ring, running
from master.api.stored import conversation, find_response, join
from master.api.streaming import Dialect, EventStream
from master.api.strict_json import read_json
from master.ending import Ending
from master.forgetting import forget_response
from master.live import Idle, Interrupted, Item, Live, Reasoning, Text
from master.planning.question import Question
from master.planning.remembered import shown_id
from master.running import Running
from master.submit import Accepted, Asker, Terms

router = APIRouter(tags=["OpenAI"])

ID_HEADER = "x-millrace-request-id"
_FAILURES = (400, 401, 404, 503)
_SHOWN_AGAIN = frozenset(
    {
        "instructions",
        "max_output_tokens",
        "metadata",
        "parallel_tool_calls",
        "previous_response_id",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)

StartingAfter = Annotated[
    int | None, Query(ge=0, le=2**53, description="Go on after the event with this number.")
]


@router.post(
    "/v1/responses",
    response_model=None,
    responses=RESPONSE_RESPONSES,
    openapi_extra=request_body(ResponsesRequest),
    summary="Create a response",
)
async def create_response(request: Request) -> Response:
    """Answer an input. `model` is a model or a strategy such as `millrace/split`."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    raw = await read_json(request)
    asked = _parse(raw)
    strict = request.headers.get(STRICT_HEADER) in {"1", "true"}
    warnings = warn_of(unknown_fields(raw, ResponsesRequest), strict=strict)
    if master.draining:
        raise errors.server_draining()
    who = asker(key, request.headers, asked.user)
    note = {name: raw[name] for name in _SHOWN_AGAIN if raw.get(name) is not None}
    accepted, note = await _accept(master, asked, who, note)
    subject = Subject(
        accepted.request,
        asked.model,
        bool(asked.background),
        asked=note,
        sources=lambda: accepted.plan.given,
    )
    headers = {ID_HEADER: str(accepted.request)}
    if warnings:
        headers[WARNING_HEADER] = "; ".join(warnings)
    if asked.background and not asked.stream:
        return JSONResponse(response_shapes.response(subject, "queued"), headers=headers)
    live = master.streams.open(
        accepted.request,
        accepted.plan,
        dict(accepted.subtasks),
        background=subject.background,
    )
    subject = replace(subject, sources=lambda: live.plan.given)
    if asked.stream:
        events = Events(subject, lambda: live.reasoning)
        return _stream(master, live, key.tenant, events, headers, began=time.monotonic())
    return await _whole(request, master, accepted, live, subject, headers)


@router.get(
    "/v1/responses/{response_id}",
    response_model=None,
    responses=streamed(ModelResponse, *_FAILURES, 410),
)
async def retrieve_response(
    response_id: str,
    request: Request,
    stream: Annotated[bool, Query(description="As a stream, from the beginning.")] = False,
    starting_after: StartingAfter = None,
) -> Response:
    """A response of yours as it is now, or its stream, which any replica can go on with."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    stored, how = await find_response(master, response_id, key.tenant)
    headers = {ID_HEADER: str(stored.id)}
    if not stream:
        return JSONResponse(response_shapes.stored_response(stored, how), headers=headers)
    live = await join(master, stored)
    subject = response_shapes.subject_of(stored)
    events = Events(subject, lambda: live.reasoning, starting_after, single=starting_after is None)
    return _stream(master, live, key.tenant, events, headers)


@router.post(
    "/v1/responses/{response_id}/cancel",
    response_model=None,
    responses=success(ModelResponse, *_FAILURES),
)
async def cancel_response(response_id: str, request: Request) -> Response:
    """Cancel a response of yours. Cancelling one that has ended changes nothing."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    found, _ = await find_response(master, response_id, key.tenant)
    with outages.answered():
        await master.cancel(found.id, key.tenant)
    stored, how = await find_response(master, response_id, key.tenant)
    return JSONResponse(response_shapes.stored_response(stored, how))


@router.delete(
    "/v1/responses/{response_id}",
    response_model=None,
    responses=success(DeletedResponse, *_FAILURES),
)
async def delete_response(response_id: str, request: Request) -> dict[str, Any]:
    """Cancel a response of yours if it runs, and hide it; `/v1/requests` keeps its record."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    stored, _ = await find_response(master, response_id, key.tenant)
    with outages.answered():
        await master.cancel(stored.id, key.tenant)
        await forget_response(master, stored)
    return {"id": response_id, "object": "response", "deleted": True}


def _parse(raw: dict[str, JsonValue]) -> ResponsesRequest:
    if raw.get("prompt") is not None:
        message = "prompt is not supported here"
        raise errors.invalid_value(message, "prompt", "unsupported_parameter")
    return parsed(ResponsesRequest, raw)


async def _accept(
    master: Running, asked: ResponsesRequest, who: Asker, note: dict[str, JsonValue]
) -> tuple[Accepted, dict[str, JsonValue]]:
    previous: UUID | None = None
    before: list[Message] = []
    if asked.previous_response_id is not None:
        previous, before = await conversation(master, asked.previous_response_id, who)
    chat = _as_chat(asked, before)
    question = Question(
        model=chat.model,
        messages=chat.messages,
        parameters=chat.parameters,
        stream=bool(asked.stream),
        retrieval=chat.retrieval,
        training=may_train(chat.metadata),
    )
    question = await within(master, question, who, chat.wish)
    if question.remembered is not None:
        named: dict[str, JsonValue] = {"id": shown_id(question.remembered.conversation)}
        note = {**note, "conversation": named}
    terms = Terms(
        background=bool(asked.background),
        followed=bool(asked.stream) or not asked.background,
        previous=previous,
        note=note,
    )
    async with undone(master, question, who.tenant, chat.wish):
        return await accept(master, question, who, terms), note


def _as_chat(asked: ResponsesRequest, before: list[Message]) -> ChatBody:
    try:
        return parse_chat(asked.as_chat(before))
    except errors.ApiError as error:
        if error.param and error.param.startswith("messages"):
            error.param = "input"
        raise


async def _whole(
    request: Request,
    master: Running,
    accepted: Accepted,
    live: Live,
    subject: Subject,
    headers: dict[str, str],
) -> Response:
    """Wait for the answer; a client that leaves cancels it, unless it runs in the background."""
    try:
        how = await wait(master, request, live, headers)
    finally:
        master.leave(live, accepted.tenant)
    return JSONResponse(response_shapes.ended_response(subject, how), headers=headers)


def _stream(
    master: Running,
    live: Live,
    tenant: UUID,
    events: Events,
    headers: dict[str, str],
    began: float | None = None,
) -> Response:
    words = Dialect(events.head(), partial(_frames, events), events.error)
    return EventStream(
        master,
        live,
        tenant,
        words,
        skip=events.skip,
        thought=events.thought,
        headers=headers,
        began=began,
    )


def _frames(events: Events, item: Item) -> Iterable[bytes]:
    match item:
        case Text(text):
            return events.text(text)
        case Reasoning(text):
            return events.reasoning(text)
        case Ending():
            return (events.end(item),)
        case Interrupted():
            return (events.error(errors.server_draining()),)
        case Idle():
            return (sse.PING,)
        case _:
            return ()
