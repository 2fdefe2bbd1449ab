"""The page of one request: plan, times, parts and answer; to be rated, or cancelled."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from db import listed
from db.listed import Filter
from master.api import errors, outages
from master.api.bodies import parsed
from master.api.feedback import judge, why_not
from master.api.feedback_shapes import FeedbackRequest
from master.api.requests import Look, identity_of, look, recorded
from master.api.state import running
from master.console.fields import fields
from master.console.live import live
from master.console.markdown import as_html
from master.console.pages import fragment, page, rendered
from master.console.requests import beginning_of
from master.console.story import tell
from master.console.viewer import Viewer, posted, viewer
from master.running import Running
from master.submit import Asker

router = APIRouter(prefix="/console/requests", include_in_schema=False)


@router.get("/{request_id}")
async def show_request(request_id: str, request: Request) -> Response:
    """The page of a request, also by how its id begins."""
    seen = await viewer(request)
    if whole := await _whole(running(request), seen, request_id):
        return RedirectResponse(f"/console/requests/{whole}", status_code=303)
    return page(request, seen, "request.html", **await _values(request, seen, request_id))


@router.get("/{request_id}/whole")
async def show_whole(request_id: str, request: Request) -> Response:
    """What the page has below its title, when the request has ended meanwhile."""
    seen = await viewer(request)
    values = await _values(request, seen, request_id)
    return fragment(request, seen, "request.html", "whole", **values)


async def _whole(master: Running, seen: Viewer, said: str) -> UUID | None:
    """The one request whose id begins so, if this is less than an id."""
    beginning = beginning_of(said)
    if not beginning or len(beginning) == len(UUID(int=0).hex):
        return None
    with outages.answered():
        async with master.engine.connect() as connection:
            found = await listed.listed(connection, seen.tenant, 2, Filter(beginning=beginning))
    return found[0].id if len(found) == 1 else None


async def _values(request: Request, seen: Viewer, request_id: str) -> dict[str, Any]:
    master = running(request)
    return await _shown(master, await look(master, identity_of(request_id), seen.tenant))


async def _shown(master: Running, found: Look, *, watched: bool = False) -> dict[str, Any]:
    """What the template wants. `watched`: this is the live part."""
    record = recorded(master, found)
    stored = found.stored
    story = tell(found, record, master.streams.texts(stored.id))
    return {
        "record": record,
        "story": story,
        # While it grows, it is sent again whenever something changes.
        "formatted": None if story.open else await as_html(story.answer, below=2),
        "created_at": stored.created_at,
        "end_user": stored.end_user,
        "may_judge": why_not(stored, end_user=None) is None,
        "watched": watched,
    }


@router.get("/{request_id}/live")
async def follow_request(request_id: str, request: Request) -> Response:
    """Its live part."""
    seen = await viewer(request)
    master, identity = running(request), identity_of(request_id)
    await look(master, identity, seen.tenant)

    async def render() -> str:
        values = await _shown(master, await look(master, identity, seen.tenant), watched=True)
        return rendered("request.html", "now", **values)

    return live(request, seen, render, key=("request", identity))


@router.get("/{request_id}/answer")
async def show_answer(request_id: str, request: Request) -> Response:
    """Its finished answer as HTML, for the playground; nothing while there is none."""
    seen = await viewer(request)
    found = await look(running(request), identity_of(request_id), seen.tenant)
    formatted = None
    if found.stored.answer and not found.stored.question.get("hidden"):
        formatted = await as_html(found.stored.answer, below=1)
    return HTMLResponse(formatted) if formatted else Response(status_code=204)


@router.get("/{request_id}/parts/{step}")
async def show_part(request_id: str, step: str, request: Request) -> Response:
    """The whole text of one part."""
    seen = await viewer(request)
    found = await look(running(request), identity_of(request_id), seen.tenant)
    row = next((row for row in found.rows if row["step"] == step), None)
    if row is None or found.stored.question.get("hidden"):
        raise errors.not_found("this part of the request")
    return page(
        request, seen, "request_part.html", id=str(found.stored.id), step=step, text=row["text"]
    )


@router.post("/{request_id}/cancel")
async def cancel(request_id: str, request: Request) -> Response:
    """Cancel it, if it has not ended."""
    seen = await posted(request)
    master, identity = running(request), identity_of(request_id)
    with outages.answered():
        await master.cancel(identity, seen.tenant)
    return await _back(master, identity, seen)


@router.post("/{request_id}/feedback")
async def rate(request_id: str, request: Request) -> Response:
    """Say how good the answer is."""
    seen = await posted(request)
    master, identity = running(request), identity_of(request_id)
    body = parsed(FeedbackRequest, _said(identity, await fields(request)))
    await judge(master, body, Asker(seen.tenant))
    return await _back(master, identity, seen)


def _said(identity: UUID, form: Mapping[str, str]) -> dict[str, Any]:
    """A form as the body of `POST /v1/feedback`."""
    said: dict[str, Any] = {"request": str(identity)}
    said |= {name: form[name] for name in ("comment", "correction") if form.get(name, "").strip()}
    thumb = {"1": 1, "-1": -1}.get(form.get("rating", ""))
    return said | ({"rating": thumb} if thumb else {})


async def _back(master: Running, identity: UUID, seen: Viewer) -> Response:
    """To the page of the request. Raises 404 if there is none."""
    await look(master, identity, seen.tenant)
    return RedirectResponse(f"/console/requests/{identity}", status_code=303)
