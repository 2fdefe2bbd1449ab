"""The playground: chat with a model or a strategy, and watch its plan and parts."""

import time
from uuid import UUID

from fastapi import APIRouter
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from db import collections
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api.bodies import ChatBody, may_train, parse_chat
from master.api.errors import ApiError
from master.api.repeating import accept_once
from master.api.requests import identity_of, look, recorded
from master.api.state import running
from master.api.stored import join
from master.api.streaming import Dialect, EventStream
from master.api.strict_json import read_json
from master.console.pages import page
from master.console.playing import Screen, body_of, failed, refusal, resumed_at
from master.console.viewer import Viewer, posted, viewer
from master.live import Live
from master.planning.question import Question
from master.planning.strategies import model_names
from master.running import Running
from master.submit import Asker
from queue_schemas.registry import RESERVED_PREFIX

router = APIRouter(prefix="/console/playground", include_in_schema=False)


@router.get("")
async def show_playground(request: Request) -> Response:
    """An empty chat."""
    seen = await viewer(request)
    master = running(request)
    with outages.answered():
        async with as_tenant(master.engine, seen.tenant) as connection:
            kept = await collections.names(connection, seen.tenant)
    names = model_names(master.registry())
    return page(
        request,
        seen,
        "playground.html",
        strategies=[name for name in names if name.startswith(RESERVED_PREFIX)],
        models=[name for name in names if not name.startswith(RESERVED_PREFIX)],
        chosen=request.query_params.get("model", f"{RESERVED_PREFIX}auto"),
        collections=kept,
        absent=master.view.absent,
    )


@router.post("/chat")
async def chat(request: Request) -> Response:
    """Accept what was said, and stream plan, parts and answer. Errors are JSON, for the script."""
    seen = await posted(request)
    began = time.monotonic()
    try:
        master = running(request)
        body = parse_chat(body_of(await read_json(request)))
        if master.draining:
            raise errors.server_draining()
        accepted, live = await accept_once(master, _question(body), Asker(seen.tenant), None)
    except ApiError as error:
        return _refusal(error)
    screen = Screen(live)
    words = Dialect(screen.begin(accepted), screen.show, failed, parts=True)
    return EventStream(master, live, seen.tenant, words, began=began)


def _question(body: ChatBody) -> Question:
    return Question(
        model=body.model,
        messages=body.messages,
        parameters=body.parameters,
        stream=True,
        retrieval=body.retrieval,
        training=may_train(body.metadata),
    )


def _refusal(error: ApiError) -> Response:
    return JSONResponse(refusal(error), status_code=error.status, headers=error.headers)


@router.get("/{request_id}/events")
async def go_on(request_id: str, request: Request) -> Response:
    """The stream again, after so many characters of answer and thoughts that the page has."""
    seen = await viewer(request)
    try:
        master = running(request)
        place, thought = resumed_at(request.query_params)
        live = await _joined(master, identity_of(request_id), seen)
    except ApiError as error:
        return _refusal(error)
    words = Dialect(b"", Screen(live, place, thought).show, failed, parts=True)
    return EventStream(master, live, seen.tenant, words, skip=place, thought=thought)


async def _joined(master: Running, identity: UUID, seen: Viewer) -> Live:
    return await join(master, (await look(master, identity, seen.tenant)).stored)


@router.get("/{request_id}/bill")
async def show_bill(request_id: str, request: Request) -> Response:
    """What an answer took, for the line below it."""
    seen = await viewer(request)
    try:
        master = running(request)
        found = recorded(master, await look(master, identity_of(request_id), seen.tenant))
    except ApiError as error:
        return _refusal(error)
    bill: dict[str, JsonValue] = {
        "state": found["state"],
        "tokens": found["usage"]["total_tokens"],
        "cost": found["usage"]["cost"],
        "currency": found["usage"]["currency"],
        "engine_seconds": found["usage"]["engine_seconds"],
        "wall_seconds": found["measured"]["wall_seconds"],
    }
    return JSONResponse(bill)
