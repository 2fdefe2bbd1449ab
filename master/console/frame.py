"""What every answer of the console has in common: headers, and errors as pages."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from http.client import responses as phrases
from typing import Any
from urllib.parse import quote, urlsplit

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import from_json
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from master.api import errors
from master.api.errors import ApiError
from master.api.request_ids import request_id
from master.console.pages import page
from master.console.viewer import Forged, SignIn, Viewer, viewer

ROOT = "/console"
HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
_OF_BODY = frozenset({"content-length", "content-type"})
_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Frame:
    """Puts the headers on every answer of the console, and makes a page of what it raises."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    # Not a coroutine of its own: chats go through it too.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The ASGI application."""
        if scope["type"] != "http" or not is_console(scope["path"]):
            return self.app(scope, receive, send)
        return self._framed(scope, receive, send)

    async def _framed(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        def send_with_headers(message: Message) -> Awaitable[None]:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            return send(message)

        # No column can hold a NUL character, so nothing is ever found by one.
        app = _refuse if b"%00" in scope["query_string"] else self.app
        try:
            await app(scope, receive, send_with_headers)
        except Exception as error:
            if started:  # too late for a page: the server has to cut the connection
                raise
            request = Request(scope, receive)
            _log.error(
                "console.crashed",
                request_id=request_id(scope),
                method=request.method,
                path=request.url.path,
                exc_info=error,
            )
            answer = await _page_of(request, errors.server_error())
            await answer(scope, receive, send_with_headers)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    wrong = errors.invalid_value("an address must not contain NUL characters")
    answer = await _page_of(Request(scope), wrong)
    await answer(scope, receive, send)


def is_console(path: str) -> bool:
    """Whether a path is the console's."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def install(app: FastAPI) -> None:
    """Answer the console by pages. To be called after `errors.install`."""
    app.user_middleware.append(Middleware(Frame))  # innermost: the others see its answers
    app.exception_handler(SignIn)(_on_sign_in)
    app.exception_handler(Forged)(_on_forged)
    for kind in (ApiError, HTTPException, RequestValidationError):
        app.exception_handlers[kind] = _framed(app.exception_handlers[kind])


def _framed(in_json: Callable[..., Any]) -> Callable[..., Awaitable[Response]]:
    """What the API says in JSON, as a page."""

    async def answer(request: Request, error: Exception) -> Response:
        answered: Response = await in_json(request, error)
        if not is_console(request.url.path) or not answered.body:
            return answered
        said = from_json(bytes(answered.body))["error"]
        # `Retry-After`, `Allow` and such are for programs, and pages have scripts.
        kept = {name: answered.headers[name] for name in answered.headers if name not in _OF_BODY}
        error = ApiError(answered.status_code, said["code"], said["message"], headers=kept)
        return await _page_of(request, error)

    return answer


async def _page_of(request: Request, error: ApiError) -> Response:
    answer = await _error_page(request, error.status, error.code, error.message)
    answer.headers.update(error.headers)
    return answer


async def _error_page(request: Request, status: int, code: str, message: str) -> Response:
    """The frame with an error in it; without navigation for those who are not signed in."""
    if "hx-request" in request.headers:
        return page(request, None, "error_part.html", status, code=code, message=message)
    title = phrases.get(status, "Error")
    return page(
        request,
        await _who(request),
        "error.html",
        status,
        title=title,
        code=code,
        message=message,
    )


async def _who(request: Request) -> Viewer | None:
    with contextlib.suppress(SignIn, ApiError):
        return await viewer(request)
    return None


async def _on_forged(request: Request, error: Exception) -> Response:
    return await _error_page(request, 403, "forged", str(error))


async def _on_sign_in(request: Request, error: Exception) -> Response:
    """To the sign-in page, and back to where one was."""
    at = f"{ROOT}/login?next={quote(_back_to(request), safe='/')}"
    if "hx-request" in request.headers:
        return HTMLResponse("", status_code=401, headers={"HX-Redirect": at})
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        # A link from elsewhere comes without the cookie, because it is SameSite=Strict. The page
        # loads itself again from here, with the cookie if there is one.
        return page(request, None, "moment.html", target=_path_of(str(request.url)))
    return RedirectResponse(at, status_code=303)


def _back_to(request: Request) -> str:
    """The page that somebody looks at: for parts of it and for posts the one they came from."""
    if request.method == "GET" and "hx-request" not in request.headers:
        return _path_of(str(request.url))
    came_from = request.headers.get("hx-current-url") or request.headers.get("referer") or ROOT
    return local_path(_path_of(came_from))


def _path_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ROOT
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def local_path(path: str) -> str:
    """A path to go to after signing in: one of the console's, else its first page."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and len(path) <= 2000
    before_query = path.split("?", maxsplit=1)[0]
    is_page = is_console(before_query) and ".." not in before_query and "//" not in before_query
    return path if plain and is_page and before_query != f"{ROOT}/login" else ROOT
