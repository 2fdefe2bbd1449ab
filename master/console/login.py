"""Signing in with an API key, and out."""

import contextlib
import time

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from master.api import errors
from master.api.errors import ApiError
from master.api.keys import prefix_of
from master.api.state import ring
from master.console import signing
from master.console.fields import fields
from master.console.frame import ROOT, local_path
from master.console.pages import page
from master.console.viewer import COOKIE, SignIn, check_origin, posted, viewer
from master.metrics.sign_ins import Outcome, count_sign_in

log = structlog.get_logger(__name__)

_LONGEST_KEY = 512

router = APIRouter(prefix=ROOT, include_in_schema=False)


@router.get("/login")
async def show_login(request: Request) -> Response:
    """The form; who is signed in already goes on."""
    target = local_path(request.query_params.get("next", ROOT))
    try:
        await viewer(request)
    except SignIn:
        return page(request, None, "login.html", target=target, failure=None)
    return RedirectResponse(target, status_code=303)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """A cookie for a valid key."""
    check_origin(request)
    given = await fields(request)
    target = local_path(given.get("next", ROOT))
    plain = given.get("key", "").strip()
    try:
        key = await ring(request).owner_of(plain[:_LONGEST_KEY], time.monotonic())
    except ApiError as error:
        await _refused(request, plain, error)
        failure = _failure(plain, error)
        return page(request, None, "login.html", error.status, target=target, failure=failure)
    log.info("console.signed_in", key=key.prefix, tenant=key.tenant_name)
    count_sign_in(Outcome.SIGNED_IN)
    session = signing.begin(key.prefix, key.digest, time.time())
    answer = RedirectResponse(target, status_code=303)
    answer.set_cookie(
        COOKIE,
        session.cookie,
        max_age=signing.SESSION_SECONDS,
        path=ROOT,
        secure=_is_encrypted(request),
        httponly=True,
        samesite="strict",
    )
    return answer


async def _refused(request: Request, plain: str, error: ApiError) -> None:
    """Tell who watches. What was typed may be a password: only a prefix of ours is logged."""
    known = None
    with contextlib.suppress(ApiError):
        known = await ring(request).find(prefix_of(plain), time.monotonic())
    prefix = known.prefix if known else None
    log.warning("console.sign_in_refused", code=error.code, key=prefix)
    count_sign_in(Outcome.REFUSED)


def _failure(plain: str, error: ApiError) -> str:
    if error.code != errors.invalid_api_key().code:
        return error.message
    if not plain:
        return "Give an API key; it begins with mr-."
    return "This API key is not valid, or it was revoked."


def _is_encrypted(request: Request) -> bool:
    forwarded = request.headers.get("x-forwarded-proto", "").split(",")[0].strip()
    return "https" in {request.url.scheme, forwarded}


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Take the cookie back."""
    await posted(request)
    answer = RedirectResponse(f"{ROOT}/login", status_code=303)
    answer.delete_cookie(
        COOKIE, path=ROOT, secure=_is_encrypted(request), httponly=True, samesite="strict"
    )
    return answer
