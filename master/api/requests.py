"""`/v1/requests`: list requests, look at one, or cancel it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request

from db import judgements, ledger, listed, requests, subtasks, waiting
from db.judgements import StoredJudgement
from db.listed import Filter, ListedRequest
from db.requests import StoredRequest
from db.waiting import Place
from master.api import errors, outages, plans
from master.api.answers import CancelledRequest, RequestList, RequestRecord
from master.api.bodies import warn_of
from master.api.conversation_shapes import page
from master.api.openapi import success
from master.api.state import ring, running
from master.record import record
from master.running import Running
from queue_schemas.states import RequestState

router = APIRouter(tags=["Millrace"])

_FAILURES = (401, 404, 503)
LISTED_JUDGEMENTS = 100
_LISTING = frozenset({"state", "id", "limit", "after"})

_OPEN = "open"
_State = Annotated[
    str | None,
    Query(
        pattern=f"^({_OPEN}|{'|'.join(RequestState)})$",
        description=f"Only these; {_OPEN}: those that have not ended.",
    ),
]
_Beginning = Annotated[
    str | None,
    Query(
        alias="id",
        pattern="^[0-9a-fA-F]{4,32}$",
        description="How the id begins, or all of it, without hyphens.",
    ),
]
_Limit = Annotated[int, Query(ge=1, le=100, description="The most to list at once.")]
_After = Annotated[str | None, Query(description="Id of a request; list what is older.")]


@router.get("/v1/requests", response_model=None, responses=success(RequestList, 400, 401, 404, 503))
async def list_requests(
    request: Request,
    state: _State = None,
    beginning: _Beginning = None,
    limit: _Limit = 20,
    after: _After = None,
) -> dict[str, Any]:
    """Requests of yours, the newest first; their records have more."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys() - _LISTING), strict=True)
    states = listed.OPEN if state == _OPEN else {RequestState(state)} if state else ()
    with outages.answered():
        async with master.engine.connect() as connection:
            place = None
            if after is not None:
                place = await listed.place(connection, key.tenant, identity_of(after))
                if place is None:
                    raise errors.not_found("this request", "after")
            found = await listed.listed(
                connection,
                key.tenant,
                limit + 1,
                Filter(states, (beginning or "").lower()),
                place,
            )
    return page([_listed(each) for each in found[:limit]], has_more=len(found) > limit)


def _listed(found: ListedRequest) -> dict[str, Any]:
    times = {
        name: at.isoformat() if (at := getattr(found, name)) else None
        for name in ("created_at", "started_at", "finished_at")
    }
    fields = asdict(found) | times
    return {
        "id": str(fields.pop("id")),
        "object": "request",
        "user": fields.pop("end_user"),
    } | fields


@router.get(
    "/v1/requests/{request_id}", response_model=None, responses=success(RequestRecord, *_FAILURES)
)
async def show_request(request_id: str, request: Request) -> dict[str, Any]:
    """State, plan, subtasks, times, tokens and cost of a request of yours."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    return recorded(master, await look(master, identity_of(request_id), key.tenant))


@dataclass(frozen=True)
class Look:
    """All that is stored of a request."""

    stored: StoredRequest
    rows: Sequence[Mapping[str, Any]]
    executions: Sequence[Mapping[str, Any]]
    judged: Sequence[StoredJudgement]
    place: Place | None
    """Where it waits, before it has begun."""


async def look(master: Running, identity: UUID, tenant: UUID) -> Look:
    """A request as its owner may see it. Raises 404, or 503 while the database is away."""
    with outages.answered():
        async with master.engine.connect() as connection:
            stored = await requests.find(connection, identity, tenant)
            if stored is None:
                raise errors.not_found("this request")
            rows = await subtasks.details(connection, identity)
            spent = await ledger.executions(connection, identity)
            judged = await judgements.of_request(connection, tenant, identity, LISTED_JUDGEMENTS)
            at = await waiting.place(connection, identity) if stored.started_at is None else None
    return Look(stored, rows, spent, judged, at)


def recorded(master: Running, seen: Look) -> dict[str, Any]:
    """The record of a request, with how long it still waits. Raises 500 `plan_broken`."""
    queue = _queue(master, seen.place) if seen.place else {}
    with plans.answered():
        found = record(seen.stored, seen.rows, seen.executions, master.registry(), seen.judged)
    return found | queue


def _queue(master: Running, at: Place) -> dict[str, Any]:
    """How long it still waits, by the measure that the status events of a chat have."""
    model = master.registry().get(at.model)
    ahead = at.number - 1
    expected = master.view.expected_wait_seconds(model, ahead) if model else None
    serving = [w for w in master.view.workers if w["model"] == at.model and not w["draining"]]
    place = {"position": at.number, "expected_start_seconds": expected, "workers": len(serving)}
    return {"queue": place}


@router.delete(
    "/v1/requests/{request_id}",
    response_model=None,
    responses=success(CancelledRequest, *_FAILURES),
)
async def cancel_request(request_id: str, request: Request) -> dict[str, Any]:
    """Cancel a request of yours. Cancelling one that has ended changes nothing."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = identity_of(request_id)
    with outages.answered():
        await master.cancel(identity, key.tenant)
        async with master.engine.connect() as connection:
            stored = await requests.find(connection, identity, key.tenant)
    if stored is None:
        raise errors.not_found("this request")
    return {"id": str(stored.id), "object": "request", "state": stored.state.value}


def identity_of(text: str) -> UUID:
    """A malformed id gets the same answer as an unknown one."""
    try:
        return UUID(text)
    except ValueError:
        raise errors.not_found("this request") from None
