"""`/v1/requests/{id}/retry`: do a request again that failed."""

import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from db import requests
from master.api import errors, outages
from master.api.answers import RetriedRequest
from master.api.openapi import success
from master.api.requests import identity_of
from master.api.state import ring, running
from master.redrive import NotRedrivable, redrive
from queue_schemas.states import RequestState

router = APIRouter(tags=["Millrace"])

_RETRIABLE = frozenset({RequestState.FAILED, RequestState.EXPIRED})


@router.post(
    "/v1/requests/{request_id}/retry",
    response_model=None,
    responses=success(RetriedRequest, 401, 404, 409, 503),
)
async def retry_request(request_id: str, request: Request) -> dict[str, Any]:
    """Do a failed request of yours again, as a new one. Of one request there is only one such."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = identity_of(request_id)
    with outages.answered():
        async with master.engine.connect() as connection:
            stored = await requests.find(connection, identity, key.tenant)
        if stored is None:
            raise errors.not_found("this request")
        if stored.state not in _RETRIABLE:
            message = f"only what failed can be done again; this one is {stored.state}"
            raise errors.ApiError(409, "not_retriable", message)
        try:
            again = await redrive(master.engine, identity)
        except NotRedrivable as error:
            raise errors.ApiError(409, "not_retriable", str(error)) from error
    master.dispatcher.nudge()
    return {
        "id": str(again.id),
        "object": "request",
        "retry_of": str(identity),
        "fresh": again.fresh,
    }
