"""The list of requests: filters, pages, and rows that go on while their requests do."""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from db import listed
from db.listed import Filter, ListedRequest, TooMany
from master.api import errors, outages
from master.api.requests import identity_of
from master.api.state import running
from master.console.live import live
from master.console.pages import fragment, page, rendered
from master.console.searches import Searches
from master.console.viewer import Viewer, viewer
from master.planning.strategies import STRATEGIES
from master.rules.matching import AUTO
from master.running import Running
from queue_schemas.states import REQUEST_TERMINAL, RequestState

router = APIRouter(prefix="/console/requests", include_in_schema=False)

PAGE = 25
_TOGETHER: Mapping[str, frozenset[RequestState]] = {
    "open": listed.OPEN,
    "unanswered": listed.UNANSWERED,
}
"""Names of several states."""
_ID = re.compile(r"[0-9a-f-]{4,36}", re.IGNORECASE)
_MOST_WORDS = 8
_LONGEST = 300


@dataclass(frozen=True)
class Wish:
    """What the form above the list says, as it says it; empty: all."""

    q: str = ""
    state: str = ""
    strategy: str = ""
    model: str = ""
    user: str = ""
    since: str = ""
    until: str = ""

    @property
    def query(self) -> dict[str, str]:
        """As a link has it."""
        return {name: value for name, value in vars(self).items() if value}

    @property
    def narrowed(self) -> bool:
        """Whether more is said than an id or words."""
        return bool(self.query.keys() - {"q"})


def wish_of(query: QueryParams) -> Wish:
    """The form. Raises `ApiError` 400."""
    said = {name: query.get(name, "").strip() for name in vars(Wish())}
    for name, value in said.items():
        if len(value) > _LONGEST:
            words = f"{name} is too long; up to {_LONGEST} characters are taken"
            raise errors.invalid_value(words, name)
    return Wish(**said)


def filter_of(wish: Wish) -> Filter:
    """What a form asks for. Raises `ApiError` 400."""
    return Filter(
        states=_states(wish.state),
        beginning=beginning_of(wish.q),
        strategy=wish.strategy or None,
        model=wish.model or None,
        end_user=wish.user or None,
        since=_time(wish.since, "since"),
        until=_time(wish.until, "until"),
        words=() if beginning_of(wish.q) else _words(wish.q),
    )


def _states(state: str) -> frozenset[RequestState]:
    try:
        return _TOGETHER.get(state) or frozenset({RequestState(state)} if state else ())
    except ValueError:
        known = ", ".join((*_TOGETHER, *RequestState))
        raise errors.invalid_value(f"state must be one of: {known}", "state") from None


def beginning_of(sought: str) -> str:
    """The hexadecimal beginning of an id; empty if it is something else."""
    digits = sought.replace("-", "").lower()
    return digits if _ID.fullmatch(sought) and 4 <= len(digits) <= 32 else ""


def _words(sought: str) -> tuple[str, ...]:
    return tuple(sought.split()[:_MOST_WORDS])


def _time(said: str, name: str) -> datetime | None:
    """A time of day in UTC, unless it says otherwise."""
    if not said:
        return None
    try:
        time = datetime.fromisoformat(said)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        words = f"{name} must be a time like 2026-01-31T09:30"
        raise errors.invalid_value(words, name) from None


@router.get("")
async def list_requests(request: Request) -> Response:
    """A page of requests, the newest first."""
    seen = await viewer(request)
    master = running(request)
    wish = wish_of(request.query_params)
    after = request.query_params.get("after", "")
    which, rows, too_many = filter_of(wish), list[ListedRequest](), False
    try:
        rows = await _find(request, seen, which, after)
        if not rows and which.beginning:  # a word may look like an id
            words = replace(which, beginning="", words=_words(wish.q))
            rows = await _find(request, seen, words, after)
    except TooMany:
        too_many = True
    return page(
        request,
        seen,
        "requests.html",
        wish=wish,
        too_many=too_many,
        states=[*_TOGETHER, *RequestState],
        strategies=sorted(STRATEGIES.keys() - {AUTO}),
        models=[model.name for model in master.registry().chat_models()],
        next_url=_next(wish, rows),
        first_url=_url(wish.query) if after else None,
        **shown(rows[:PAGE], is_first=not after),
    )


def shown(rows: list[ListedRequest], *, is_first: bool) -> dict[str, Any]:
    """What the rows of the template want."""
    going_on = is_first and any(row.state not in REQUEST_TERMINAL for row in rows)
    ids = ",".join(row.id.hex for row in rows)
    return {"rows": rows, "ids": ids, "going_on": going_on, "watched": False}


async def _find(request: Request, seen: Viewer, which: Filter, after: str) -> list[ListedRequest]:
    """One more than a page has. Raises `TooMany`, and `ApiError` 404 or 503."""
    searches: Searches = request.app.state.searches
    with outages.answered():
        async with (
            searches.room(seen.tenant) if which.is_unindexed else nullcontext(),
            running(request).engine.connect() as connection,
        ):
            place = None
            if after:
                place = await listed.place(connection, seen.tenant, identity_of(after))
                if place is None:
                    raise errors.not_found("the request that this page goes on from", "after")
            return await listed.listed(connection, seen.tenant, PAGE + 1, which, place)


def _next(wish: Wish, rows: list[ListedRequest]) -> str | None:
    return _url({**wish.query, "after": str(rows[PAGE - 1].id)}) if len(rows) > PAGE else None


def _url(query: Mapping[str, str]) -> str:
    return f"/console/requests?{urlencode(query)}" if query else "/console/requests"


@router.get("/live")
async def follow_rows(request: Request) -> Response:
    """The rows of these requests, while any of them is open."""
    seen = await viewer(request)
    master, ids = running(request), _ids(request)

    async def render() -> str:
        values = shown(await _these(master, seen, ids), is_first=True)
        return rendered("requests.html", "rows", **{**values, "watched": True})

    return live(request, seen, render, key=("requests", *ids))


@router.get("/rows")
async def show_rows(request: Request) -> Response:
    """The same once."""
    seen = await viewer(request)
    rows = await _these(running(request), seen, _ids(request))
    return fragment(request, seen, "requests.html", "body", **shown(rows, is_first=True))


def _ids(request: Request) -> tuple[UUID, ...]:
    said = request.query_params.get("ids", "").split(",")
    return tuple(identity_of(each) for each in said[:PAGE])


async def _these(master: Running, seen: Viewer, ids: tuple[UUID, ...]) -> list[ListedRequest]:
    with outages.answered():
        async with master.engine.connect() as connection:
            return await listed.listed(connection, seen.tenant, PAGE, Filter(ids=ids))
