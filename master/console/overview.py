"""What happens now, and what the last hour was like."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from master.console.live import live
from master.console.pages import page, rendered
from master.console.plots import Series, bar, columns, sparkline
from master.console.snapshot import Snapshots
from master.console.viewer import Viewer, viewer
from master.trails import TRAIL

router = APIRouter(prefix="/console", include_in_schema=False)

_DRAWING: Mapping[str, Any] = {
    "bar": bar,
    "sparkline": sparkline,
    "columns": columns,
    "Series": Series,
}


@router.get("")
async def show_overview(request: Request) -> Response:
    """The overview."""
    seen = await viewer(request)
    snapshot = await snapshots(request).of(seen.tenant)
    return page(request, seen, "overview.html", now=snapshot, trail=TRAIL, **_DRAWING)


@router.get("/live/overview")
async def follow_overview(request: Request) -> Response:
    """Its live part."""
    seen = await viewer(request)
    return live(request, seen, lambda: _part(snapshots(request), seen), key="overview")


async def _part(kept: Snapshots, seen: Viewer) -> str:
    now = await kept.of(seen.tenant)
    return rendered("overview.html", "now", now=now, trail=TRAIL, **_DRAWING)


def snapshots(request: Request) -> Snapshots:
    """Those of this replica."""
    kept: Snapshots = request.app.state.snapshots
    return kept
