"""A span around every request of the API. Only there while tracing is on."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bus import tracing
from bus.tracing import Kind, Span

_PATHS = ("/v1/",)
"""Probes, metrics and pages would only bury what people asked."""
_TRACEPARENT = tracing.TRACEPARENT.encode()
_REQUEST = b"x-millrace-request-id"


class TracedRequests:
    """From a request's arrival to the last byte of its answer, below the client's own span."""

    def __init__(self, app: ASGIApp, paths: tuple[str, ...] = _PATHS) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http" or not scope["path"].startswith(self.paths):
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        with tracing.span(method, Kind.SERVER, parent=_parent(scope), method=method) as span:
            # Not a coroutine of its own: it is called for each chunk of a stream.
            def noted(message: Message) -> Awaitable[None]:
                if message["type"] == "http.response.start":
                    _note(span, scope, message)
                return send(message)

            await self.app(scope, receive, noted)


def _parent(scope: Scope) -> str:
    """The client's span; an empty one, with which a trace begins, where it names none or two."""
    given = [value for name, value in scope["headers"] if name == _TRACEPARENT]
    return given[0].decode("latin-1") if len(given) == 1 else ""


def _note(span: Span, scope: Scope, start: Message) -> None:
    status = start["status"]
    request = next((value for name, value in start["headers"] if name == _REQUEST), b"")
    span.note(status=status, request=request.decode("latin-1") or None)
    if route := _route(scope):
        span.rename(f"{scope['method']} {route}")
        span.note(route=route)
    if status >= 500:
        span.fail(str(status))


def _route(scope: Scope) -> str | None:
    """The path as the route names it, never one with somebody's ids."""
    path = getattr(scope.get("route"), "path", None)
    if path is None and scope.get("endpoint") is not None and not scope.get("path_params"):
        path = scope["path"]
    return path
