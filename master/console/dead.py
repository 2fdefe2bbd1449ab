"""Dead letters: subtasks that failed for good, until somebody does them again or puts them away."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db import dead, ledger
from db.dead import DeadSubtask
from master.api import errors, outages
from master.api.state import running
from master.console.fields import fields
from master.console.pages import page
from master.console.viewer import Viewer, posted, viewer
from master.planning.chat import in_words, text_of
from master.redrive import NotRedrivable, Redriven, redrive

router = APIRouter(prefix="/console/dead", include_in_schema=False)
log = structlog.get_logger(__name__)

MOST = 100


@router.get("")
async def show_dead(request: Request) -> Response:
    """Those that wait for a decision; with `settled` also the others."""
    seen = await viewer(request)
    settled = request.query_params.get("settled") == "1"
    model = request.query_params.get("model") or None
    with outages.answered():
        async with running(request).engine.connect() as connection:
            found = await dead.list_dead(
                connection, tenant=seen.tenant, settled=settled, model=model, limit=MOST + 1
            )
    models = [model.name for model in running(request).registry().chat_models()]
    return page(
        request,
        seen,
        "dead.html",
        letters=found[:MOST],
        more=len(found) > MOST,
        settled=settled,
        model=model,
        models=models,
    )


@router.get("/{subtask_id}")
async def show_letter(subtask_id: str, request: Request) -> Response:
    """One of them, with its attempts."""
    seen = await viewer(request)
    return await _letter(request, seen, subtask_id)


async def _letter(
    request: Request, seen: Viewer, subtask_id: str, refusal: str | None = None
) -> Response:
    with outages.answered():
        async with running(request).engine.connect() as connection:
            letter = await _find(connection, subtask_id, seen)
            spent = await ledger.executions(connection, letter.request)
    attempts = [line for line in spent if line["subtask_id"] == letter.id]
    models = [model.name for model in running(request).registry().chat_models()]
    return page(
        request,
        seen,
        "letter.html",
        409 if refusal else 200,
        letter=letter,
        attempts=attempts,
        silent=max(0, letter.attempt - len({line["attempt"] for line in attempts})),
        messages=prompt_of(letter.question),
        models=models,
        refusal=refusal,
    )


async def _find(connection: AsyncConnection, subtask_id: str, seen: Viewer) -> DeadSubtask:
    try:
        identity = UUID(subtask_id)
    except ValueError:
        raise errors.not_found("this dead letter") from None
    found = await dead.get(connection, identity, seen.tenant)
    if found is None:
        raise errors.not_found("this dead letter")
    return found


def prompt_of(question: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who said what, as plain text; nothing of what its owner deleted."""
    if question.get("hidden"):
        return []
    return [
        (str(message.get("role", "")), text_of(in_words(message)))
        for message in question.get("messages", ())
    ]


@router.post("/{subtask_id}/again")
async def do_again(subtask_id: str, request: Request) -> Response:
    """Its request once more, as a new one."""
    seen = await posted(request)
    model = (await fields(request)).get("model") or None
    master = running(request)
    if model is not None and model not in {each.name for each in master.registry().chat_models()}:
        names = [each.name for each in master.registry().chat_models()]
        raise errors.model_not_found(model, names)
    try:
        again = await _again(request, seen, subtask_id, model)
    except NotRedrivable as refusal:
        return await _letter(request, seen, subtask_id, str(refusal))
    master.dispatcher.nudge()
    log.info("dead.done_again", request=str(again.id), subtask=subtask_id, key=seen.prefix)
    return RedirectResponse(f"/console/requests/{again.id}", status_code=303)


async def _again(request: Request, seen: Viewer, subtask_id: str, model: str | None) -> Redriven:
    with outages.answered():
        engine = running(request).engine
        async with engine.connect() as connection:
            letter = await _find(connection, subtask_id, seen)
        return await redrive(engine, letter.request, model=model)


@router.post("/{subtask_id}/away")
async def put_away(subtask_id: str, request: Request) -> Response:
    """Off the list; it stays in its request's record."""
    seen = await posted(request)
    with outages.answered():
        async with running(request).engine.begin() as connection:
            letter = await _find(connection, subtask_id, seen)
            await dead.drop(connection, [letter.id])
    log.info("dead.put_away", subtask=subtask_id, key=seen.prefix)
    return RedirectResponse("/console/dead", status_code=303)
