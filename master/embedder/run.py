"""The embedder process: start, preloading and an orderly end."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import structlog
import uvicorn

from master.embedder.app import create_app
from master.embedder.loaded import Loaded
from master.embedder.settings import EmbedderSettings

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 75
"""As of masters: longer than a client of theirs keeps a connection."""


async def serve(
    settings: EmbedderSettings, on_listening: Callable[[int], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; running requests are finished.

    It listens at once, and answers 503 until the model is loaded. `on_listening` gets the port.
    Raises EmbeddingError or RerankError when a model cannot be loaded.
    """
    sock = _listen(settings.host, settings.port)
    port = sock.getsockname()[1]
    async with contextlib.aclosing(Loaded(settings)) as loaded:
        server = _server(loaded, settings)
        answering = asyncio.create_task(loaded.run(), name="gathering")
        loading = asyncio.create_task(loaded.load(), name="loading")
        loading.add_done_callback(lambda task: _stop_if_failed(task, server))
        log.info("embedder.listening", url=f"http://{settings.host}:{port}")
        if on_listening is not None:
            on_listening(port)
        try:
            await server.serve(sockets=[sock])
            if loading.done():
                loading.result()
        finally:
            for task in (answering, loading):
                task.cancel()
            await asyncio.gather(answering, loading, return_exceptions=True)


def _server(loaded: Loaded, settings: EmbedderSettings) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(loaded),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )
    return uvicorn.Server(config)


def _stop_if_failed(loading: asyncio.Task[None], server: uvicorn.Server) -> None:
    if loading.cancelled() or loading.exception() is not None:
        server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)
