"""`/v1/feedback`: what people say of answers, to be said, changed, looked at and taken back."""

import time
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from db import judgements, requests, subtasks
from db.judgements import StoredJudgement
from db.models import JudgementKind, JudgementSource
from db.requests import StoredRequest
from db.tenancy import as_tenant, enter
from master.api import errors, outages
from master.api.answers import JudgementList, JudgementRecord
from master.api.auth import asker
from master.api.bodies import parsed, unknown_fields, warn_of
from master.api.feedback_shapes import FeedbackRequest, human_judgement
from master.api.openapi import failures, request_body, success
from master.api.requests import LISTED_JUDGEMENTS, identity_of
from master.api.state import ring, running
from master.api.strict_json import read_json
from master.learning.verdicts import person
from master.metrics.learned import count_judgements
from master.record import judgement_record
from master.running import Running
from master.submit import Asker
from queue_schemas.states import REQUEST_TERMINAL

router = APIRouter(prefix="/v1/feedback", tags=["Millrace"])

_SAID: dict[int | str, dict[str, Any]] = {
    200: {"model": JudgementRecord, "description": "Changed, or said again"},
    201: {"model": JudgementRecord, "description": "Stored"},
    **failures(400, 401, 403, 404, 408, 409, 413, 415, 503),
}
_WITHDRAWN: dict[int | str, dict[str, Any]] = {
    204: {"description": "It is withdrawn"},
    **failures(400, 401, 403, 404, 503),
}


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses=_SAID,
    openapi_extra=request_body(FeedbackRequest),
)
async def give_feedback(request: Request) -> Response:
    """Rate, comment or correct an answer, or one part of it. Who says it again changes it."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    raw = await read_json(request)
    warn_of(unknown_fields(raw, FeedbackRequest), strict=True)
    body = parsed(FeedbackRequest, raw)
    made, is_new = await judge(master, body, asker(key, request.headers, body.user))
    return JSONResponse(judgement_record(made), status_code=201 if is_new else 200)


async def judge(master: Running, body: FeedbackRequest, who: Asker) -> tuple[StoredJudgement, bool]:
    """Store what a person says, and whether it is the first. Raises 403, 404, 409 or 503."""
    with outages.answered():
        async with master.engine.begin() as connection:
            stored = await requests.find(connection, body.request, who.tenant)
            check_may_judge(stored, who.end_user)
            subject = await subject_of(connection, body)
            await enter(connection, who.tenant)
            said = human_judgement(body, person(who.end_user), subject, JudgementSource.API)
            [judged] = await judgements.put(connection, who.tenant, body.request, [said])
    count_judgements([said])
    return judged


def check_may_judge(stored: StoredRequest | None, end_user: str | None) -> None:
    """Whether this person may judge this request now. Raises 403, 404 or 409."""
    if error := why_not(stored, end_user):
        raise error


def why_not(stored: StoredRequest | None, end_user: str | None) -> errors.ApiError | None:
    """Why this person may not judge this request now; None: they may."""
    if stored is None or stored.question.get("erased"):
        return errors.not_found("this request", "request")
    if stored.end_user and stored.end_user != end_user and not stored.shared:
        return _other_user("only the user who asked can judge this answer")
    if stored.state not in REQUEST_TERMINAL:
        message = f"only an answer that has ended can be judged; this one is {stored.state}"
        return errors.ApiError(409, "not_ended", message, param="request")
    return None


def _other_user(message: str) -> errors.ApiError:
    return errors.ApiError(403, "other_user", message, param="user")


async def subject_of(connection: AsyncConnection, body: FeedbackRequest) -> str:
    """The step of the subtask that is judged; empty for the answer as a whole."""
    if body.subtask is None:
        return ""
    steps = (await subtasks.of_requests(connection, [body.request])).get(body.request, [])
    for step in steps:
        if step.id == body.subtask:
            return step.step
    raise errors.not_found("this subtask of the request", "subtask")


@router.get("", response_model=None, responses=success(JudgementList, 400, 401, 404, 503))
async def list_feedback(
    request: Request,
    of: Annotated[str, Query(alias="request", description="Id of a request of yours.")],
) -> dict[str, Any]:
    """All that was said of a request of yours: by people, by judges, by who stopped it."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys() - {"request"}), strict=True)
    identity = identity_of(of)
    with outages.answered():
        async with master.engine.begin() as connection:
            if await requests.find(connection, identity, key.tenant) is None:
                raise errors.not_found("this request", "request")
            await enter(connection, key.tenant)
            found = await judgements.of_request(
                connection, key.tenant, identity, LISTED_JUDGEMENTS + 1
            )
    data = [judgement_record(each) for each in found[:LISTED_JUDGEMENTS]]
    return {"object": "list", "data": data, "has_more": len(found) > LISTED_JUDGEMENTS}


@router.delete("/{feedback_id}", status_code=204, response_model=None, responses=_WITHDRAWN)
async def withdraw_feedback(
    feedback_id: str,
    request: Request,
    user: Annotated[
        str | None, Query(description="Whose it is, where no header of the front end says so.")
    ] = None,
) -> Response:
    """Take back what a person said of an answer."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys() - {"user"}), strict=True)
    identity = _identity(feedback_id)
    who = asker(key, request.headers, user)
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            found = await judgements.find(connection, key.tenant, identity)
            if found is None or found.kind is not JudgementKind.HUMAN:
                raise errors.not_found("this feedback")
            if found.rater != person(who.end_user):
                raise _other_user("only the user who said this can take it back")
            if not await judgements.delete(connection, key.tenant, identity):
                raise errors.not_found("this feedback")
    return Response(status_code=204)


def _identity(text: str) -> UUID:
    """A malformed id gets the same answer as an unknown one."""
    try:
        return UUID(text)
    except ValueError:
        raise errors.not_found("this feedback") from None
