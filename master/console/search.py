"""Search: what is found in documents, with every score and every leg's place for it."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from db import collections
from db.chunks import StoredChunk
from db.corpus import Strategy
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api import search as api
from master.api.bodies import parsed
from master.api.errors import ApiError
from master.api.search_shapes import SearchRequest
from master.api.state import running
from master.console import highlight
from master.console.pages import page
from master.console.ranks import Ranks, ranks
from master.console.viewer import Viewer, viewer
from master.planning.question import DEFAULT_COLLECTION
from master.retrieval.search import Hit, SearchResult
from master.running import Running

router = APIRouter(prefix="/console/search", include_in_schema=False)

_MOST = 100
"""Of all candidates of both legs that are asked for, so that each has its place."""
_MOST_SHOWN = 50
_CANDIDATES = 20


@dataclass(frozen=True)
class Shown:
    """A hit as it is shown."""

    hit: Hit
    ranks: Ranks
    text: tuple[highlight.Part, ...]


@dataclass(frozen=True)
class Leg:
    """What one strategy finds; or why it cannot be asked."""

    name: str
    hits: tuple[Hit, ...] = ()
    failure: str = ""


@router.get("")
async def show_search(request: Request) -> Response:
    """The form, and what was found where something is asked."""
    seen = await viewer(request)
    master = running(request)
    with outages.answered():
        async with as_tenant(master.engine, seen.tenant) as connection:
            known = await collections.names(connection, seen.tenant)
    asked = _asked(request, known)
    found: dict[str, Any] = {"failure": None, "result": None, "hits": (), "legs": ()}
    status = 200
    if asked["query"]:
        try:
            found |= await _found(master, seen, asked)
        except ApiError as error:
            status, found["failure"] = error.status, error
    return page(request, seen, "search.html", status, asked=asked, collections=known, **found)


def _asked(request: Request, known: list[str]) -> dict[str, Any]:
    """What the form has; where nothing was said, what it begins with."""
    said = {name: value.strip() for name, value in request.query_params.items()}
    first = known[0] if known and DEFAULT_COLLECTION not in known else DEFAULT_COLLECTION
    return {
        "query": said.get("query", ""),
        "collection": said.get("collection") or first,
        "strategy": said.get("strategy", ""),
        "top": said.get("top") or "10",
        "rerank": said.get("rerank", "yes"),
        "compare": said.get("compare") == "yes",
    }


async def _found(master: Running, seen: Viewer, asked: dict[str, Any]) -> dict[str, Any]:
    top = _whole(asked["top"])
    candidates = max(_CANDIDATES, top)
    raw = {
        "query": asked["query"],
        "collection": asked["collection"],
        "strategy": asked["strategy"] or None,
        "top": _MOST,
        "candidates": candidates,
        "rerank": asked["rerank"] != "no",
    }
    if asked["compare"]:
        return {"legs": [await _leg(master, seen, raw, each, top) for each in Strategy]}
    result = await api.found(master, seen.tenant, parsed(SearchRequest, raw))
    return {"result": result, "hits": _shown(result, asked["query"], candidates)[:top]}


def _whole(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= _MOST_SHOWN:
        return int(text)
    raise errors.invalid_value(f"top must be a whole number from 1 to {_MOST_SHOWN}", "top")


def _shown(result: SearchResult, query: str, candidates: int) -> list[Shown]:
    places = ranks(result.hits, candidates)
    return [
        Shown(hit, places[hit.chunk.id], highlight.parts(_piece(hit.chunk), query))
        for hit in result.hits
    ]


def _piece(chunk: StoredChunk) -> str:
    headings = chunk.heading_path
    begins = not chunk.position or bool(headings and chunk.text.startswith(headings[-1]))
    return highlight.piece(chunk.text, begins=begins)


async def _leg(
    master: Running, seen: Viewer, raw: dict[str, Any], strategy: Strategy, top: int
) -> Leg:
    try:
        asked = parsed(SearchRequest, raw | {"strategy": strategy.value})
        result = await api.found(master, seen.tenant, asked)
    except ApiError as error:
        # Without vectors, or the model that makes them, other legs may still find something.
        if error.param != "strategy" and error.status < 500:
            raise
        return Leg(strategy.value, failure=error.message)
    return Leg(strategy.value, tuple(result.hits[:top]))
