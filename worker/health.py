"""What a worker tells those who look after it: `/live`, `/ready` and `/metrics`.

It is served on the worker's own event loop, so an answer proves that the loop turns.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry

from worker import metrics
from worker.standing import Standing

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Answer = tuple[int, str, bytes]
"""Status, media type, body."""

_JSON = "application/json"


def answer(path: str, standing: Standing, registry: CollectorRegistry, accept: str = "") -> Answer:
    """What is said to a GET of this path."""
    match path:
        case "/live":
            return _live(standing)
        case "/ready":
            return _ready(standing)
        case "/metrics":
            body, media_type = metrics.render(registry, accept)
            return 200, media_type, body
        case _:
            return _said(404, status="not_found", message="there are /live, /ready and /metrics")


def _live(standing: Standing) -> Answer:
    if standing.alive:
        return _said(200, status="alive", worker=standing.worker, model=standing.model.name)
    return _said(503, status="dead", message="its heartbeats have ended; it has to be restarted")


def _ready(standing: Standing) -> Answer:
    why_not = standing.why_not_ready()
    if why_not is None:
        return _said(200, status="ready", worker=standing.worker, model=standing.model.name)
    reason, message = why_not
    return _said(503, status="not_ready", reason=reason.value, message=message)


def _said(status_code: int, **fields: str) -> Answer:
    return status_code, _JSON, json.dumps(fields, ensure_ascii=False).encode()


class Health:
    """The ASGI application."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._registry = metrics.make_registry(standing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] in {"GET", "HEAD"}:
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            status, media_type, body = answer(scope["path"], self._standing, self._registry, accept)
        else:
            status, media_type, body = _said(405, status="refused", message="use GET")
        headers = [
            (b"content-type", media_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """Leaves the signals to the worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on. Raises OSError with cause and remedy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        remedy = "choose another MILLRACE_HEALTH_PORT or MILLRACE_HEALTH_HOST, or none"
        raise OSError(f"cannot answer probes on {host}:{port}: {reason}; {remedy}") from error


@contextlib.asynccontextmanager
async def serving(standing: Standing, sock: socket.socket) -> AsyncGenerator[None]:
    """Answer for as long as the block runs."""
    config = uvicorn.Config(
        Health(standing),
        interface="asgi3",
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]), name="health")
    try:
        yield
    finally:
        server.should_exit = True
        await task
