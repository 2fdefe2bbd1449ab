"""The console's routes: one line for each module."""

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from master.api import errors
from master.console import (
    assets,
    dead,
    documents,
    feedback,
    frame,
    login,
    overview,
    playground,
    request,
    requests,
    rules,
    search,
    usage,
    workers,
)
from master.console.live import Parts
from master.console.searches import Searches
from master.console.snapshot import Snapshots
from master.console.viewer import viewer
from master.running import Running

router = APIRouter(include_in_schema=False)
for _module in (
    assets,
    login,
    overview,
    workers,
    dead,
    usage,
    documents,
    search,
    rules,
    feedback,
    requests,
    request,
    playground,
):
    router.routes.extend(_module.router.routes)


def install(app: FastAPI) -> None:
    """Serve the console. To be called after `errors.install`."""
    running: Running = app.state.running
    app.state.live_parts = Parts()
    app.state.searches = Searches()
    app.state.snapshots = Snapshots(running.engine, running.view, running.settings.request_seconds)
    app.router.routes.extend(router.routes)  # not included: see `create_app`
    frame.install(app)


@router.get("/console/{path:path}")
async def show_nothing(path: str, request: Request) -> Response:
    """An address without a page, in the frame; strangers are asked to sign in first."""
    if not path:  # people type a slash at the end
        return RedirectResponse(frame.ROOT, status_code=308)
    await viewer(request)
    raise errors.not_found("this page")
