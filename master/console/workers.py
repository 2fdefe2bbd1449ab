"""The workers that were heard of lately, by model."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from db.workers import ModelLoad
from master.api.state import running
from master.console.lanes import Lane, lane, lanes
from master.console.live import live
from master.console.pages import page, rendered
from master.console.plots import bar
from master.console.viewer import viewer
from master.fleet import FleetView

router = APIRouter(prefix="/console", include_in_schema=False)


class Served(NamedTuple):
    """One model with its workers."""

    lane: Lane
    workers: Sequence[Mapping[str, Any]]


@router.get("/workers")
async def show_workers(request: Request) -> Response:
    """The workers."""
    seen = await viewer(request)
    view = running(request).view
    return page(request, seen, "workers.html", served=served(view), bar=bar)


@router.get("/live/workers")
async def follow_workers(request: Request) -> Response:
    """The same, live."""
    seen = await viewer(request)
    view = running(request).view

    async def render() -> str:
        return rendered("workers.html", "now", served=served(view), bar=bar)

    return live(request, seen, render, key="workers")


def served(view: FleetView) -> Sequence[Served]:
    """Every model of the registry, and those that only workers still know."""
    by_model = {
        model: list(workers)
        for model, workers in groupby(
            sorted(view.workers, key=lambda worker: (worker["model"], worker["name"])),
            key=lambda worker: str(worker["model"]),
        )
    }
    known = [Served(each, by_model.pop(each.model, [])) for each in lanes(view)]
    return [
        *known,
        *(
            Served(lane(name, rest, ModelLoad(), sleeps=True), rest)
            for name, rest in by_model.items()
        ),
    ]
