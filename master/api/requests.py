"""`/v1/requests/{id}`: look at a request, or cancel it."""

import time
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request

from db import judgements, ledger, requests, subtasks, waiting
from db.waiting import Place
from master.api import errors, outages
from master.api.answers import CancelledRequest, RequestRecord
from master.api.openapi import success
from master.api.state import ring, running
from master.record import record
from master.running import Running

router = APIRouter(tags=["Millrace"])

_FAILURES = (401, 404, 503)
LISTED_JUDGEMENTS = 100


@router.get(
    "/v1/requests/{request_id}", response_model=None, responses=success(RequestRecord, *_FAILURES)
)
async def show_request(request_id: str, request: Request) -> dict[str, Any]:
    """State, plan, subtasks, times, tokens and cost of a request of yours."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = identity_of(request_id)
    with outages.answered():
        async with master.engine.connect() as connection:
            stored = await requests.find(connection, identity, key.tenant)
            if stored is None:
                raise errors.not_found("this request")
            rows = await subtasks.details(connection, identity)
            spent = await ledger.executions(connection, identity)
            judged = await judgements.of_request(
                connection, key.tenant, identity, LISTED_JUDGEMENTS
            )
            at = await waiting.place(connection, identity) if stored.started_at is None else None
    queue = _queue(master, at) if at else {}
    return record(stored, rows, spent, master.registry(), judged) | queue


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
