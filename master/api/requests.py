"""`/v1/requests/{id}`: look at a request, or cancel it."""

import time
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request

from db import requests, subtasks
from master.api import errors, outages
from master.api.answers import CancelledRequest, RequestRecord
from master.api.documents import success
from master.api.state import ring, running
from master.record import record

router = APIRouter(tags=["Millrace"])

_FAILURES = (401, 404, 503)


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
            ledger = await subtasks.ledger(connection, identity)
    return record(stored, rows, ledger, master.registry())


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
