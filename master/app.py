"""The master process: wiring, start and stop."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from importlib.metadata import version

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.routing import Route

from bus import tracing
from bus.protocol import Bus
from db.engine import create_engine
from master.api import (
    chat,
    collections,
    conversations,
    documents,
    embeddings,
    errors,
    events,
    feedback,
    input_items,
    openapi,
    operations,
    requests,
    rerank,
    responses,
    retrying,
    routing,
    rules,
    search,
)
from master.api.auth import KnownKeys
from master.api.connection import Connection
from master.api.traced import TracedRequests
from master.api.upload_room import UPLOADS, UploadRoom
from master.batch import ingests
from master.batches import Batches
from master.collect import Collector
from master.console import docs
from master.console import router as console
from master.dispatch import Dispatcher
from master.facts import Fact, is_urgent
from master.feedback_intake import Intake
from master.fleet import FleetView, queues
from master.forgetting import forget_late
from master.hearing import Hearing
from master.learning import pull, rounds
from master.learning.routing import Routing
from master.memories import Memories
from master.retrieval.embedders.pool import Embedders
from master.retrieval.rerankers.registry import make_reranker
from master.rulebook import Rulebook
from master.running import Running
from master.settings import MasterSettings, RoutingMode
from master.streams import Streams
from master.sweep import Sweeper
from queue_schemas.registry import Registry

log = structlog.get_logger(__name__)

_CUT_AFTER_SECONDS = 5
_IDLE_SECONDS = 75
"""For longer than clients and proxies keep a connection: one that its server closes in the moment
in which it is used again costs its client an error."""
_FROZEN_SECONDS = 60
"""No transaction of a master waits for anything but the database, and never for so long."""
_CORPUS_POOL = 4
"""Connections for changes of documents and collections, which may wait for each other."""
_LINGER_SECONDS = 0.05
"""A claim whose result is that quick is never written apart from it."""


@contextlib.asynccontextmanager
async def run(
    settings: MasterSettings, registry: Callable[[], Registry], bus: Bus
) -> AsyncGenerator[Running, None]:
    """A running master without its HTTP server: the loops live as long as the context."""
    async with (
        _engine(settings, settings.database_pool) as engine,
        _engine(settings, _CORPUS_POOL) as corpus_engine,
        _loops(settings, registry, bus, engine, corpus_engine) as running,
    ):
        yield running


@contextlib.asynccontextmanager
async def _engine(settings: MasterSettings, pool_size: int) -> AsyncGenerator[AsyncEngine]:
    url, name = settings.database_url.get_secret_value(), f"millrace master {settings.replica}"
    engine = create_engine(url, pool_size=pool_size, name=name, idle_seconds=_FROZEN_SECONDS)
    try:
        yield engine
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def _loops(
    settings: MasterSettings,
    registry: Callable[[], Registry],
    bus: Bus,
    engine: AsyncEngine,
    corpus_engine: AsyncEngine,
) -> AsyncGenerator[Running, None]:
    await bus.declare(queues(registry()))
    view = FleetView(registry, settings.window)
    facts: Batches[Fact] = Batches(
        "facts", limit=500, linger_seconds=_LINGER_SECONDS, is_urgent=is_urgent
    )
    dispatcher = Dispatcher(engine, bus, view, facts, settings.key_ring)
    streams = Streams(
        engine,
        bus,
        settings.replica,
        settings.key_ring,
        dispatcher.nudge,
        absent=lambda: view.absent,
    )
    collector = Collector(engine, bus, view, dispatcher, streams, facts, settings)
    learning = Routing(
        engine,
        registry,
        learns=settings.routing is RoutingMode.LEARNED,
        explore_share=settings.explore_share,
    )
    hearing = Hearing(settings.lease_seconds, lambda: facts.unwritten_seconds)
    sweeper = Sweeper(engine, bus, view, dispatcher, streams, settings, hearing)
    intake = Intake(engine, bus, settings.feedback_seconds)
    worker_seconds = settings.lease_seconds
    await view.refresh(engine, worker_seconds)
    key = settings.reranker_key.get_secret_value() if settings.reranker_key else None
    async with (
        contextlib.aclosing(Embedders(registry)) as embedders,
        contextlib.aclosing(make_reranker(settings.reranker, key)) as reranker,
        ingests.opened(settings, embedders) as ingest,
        pull.opened(settings, corpus_engine) as puller,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            group.create_task(streams.run(), name="streams"),
            group.create_task(collector.run(), name="collect"),
            group.create_task(dispatcher.run(settings.dispatch_seconds), name="dispatch"),
            group.create_task(sweeper.run(), name="sweep"),
            group.create_task(ingest.run(), name="ingest"),
            group.create_task(intake.run(), name="intake"),
            group.create_task(learning.run(), name="routing"),
            group.create_task(
                view.watch(engine, bus, settings.fleet_seconds, worker_seconds), name="fleet"
            ),
        ]
        if puller is not None:
            tasks.append(group.create_task(puller.run(), name="openwebui"))
        if settings.celery_broker_url is None:
            learn = rounds.run(corpus_engine, bus, settings)
            tasks.append(group.create_task(learn, name="learning"))
        try:
            running = Running(
                settings,
                engine,
                corpus_engine,
                bus,
                view,
                dispatcher,
                streams,
                embedders,
                reranker,
                Rulebook(engine),
                learning,
                ingest.announce,
            )
            late = partial(forget_late, engine, running.cancel)
            memories = Memories(running.submission, running.recall, settings.memory_window, late)
            remember = memories.run(settings.memory_seconds)
            tasks.append(group.create_task(remember, name="memories"))
            yield running
        finally:
            for task in tasks:
                task.cancel()


def create_app(running: Running) -> FastAPI:
    """The HTTP application of a running master."""
    app = FastAPI(
        title="Millrace",
        version=version("millrace"),
        description="One chat request becomes many durable subtasks, and still one stream.",
        docs_url=None,  # FastAPI's page runs scripts from elsewhere, beside the console
        redoc_url=None,
    )
    app.state.running = running
    app.state.ring = KnownKeys(running.engine, running.settings.key_cache_seconds)
    app.state.upload_room = UploadRoom(UPLOADS * running.settings.max_upload_bytes)
    app.state.started = time.time()
    for module in (
        chat,
        responses,
        input_items,
        requests,
        retrying,
        events,
        feedback,
        rules,
        documents,
        collections,
        conversations,
        embeddings,
        rerank,
        search,
        routing,
        operations,
    ):
        # Included, a router makes each of its routes anew in every application, at the first
        # request that comes by; the routes as they are cost nothing, and less at each request.
        app.router.routes.extend(module.router.routes)
    # FastAPI's own way to an endpoint (past every route, with parameters to be solved) is an
    # eighth of what a short chat costs this process; its route stays, for the OpenAPI document.
    hot = Route("/v1/chat/completions", chat.chat_completions, methods=["POST"])
    app.router.routes.insert(0, hot)
    errors.install(app)
    docs.install(app, console=running.settings.console)
    if running.settings.console:
        console.install(app)
    if tracing.is_on():
        app.add_middleware(TracedRequests)  # outside of all others
    openapi.install(app)
    return app


class _Server(uvicorn.Server):
    """Ends streams with a clear error before it would cut them."""

    def __init__(self, config: uvicorn.Config, running: Running) -> None:
        super().__init__(config)
        self._running = running
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, give open streams their time, then let go of the rest."""
        self._running.draining = True
        letting_go = asyncio.create_task(self._let_go())
        await super().shutdown(sockets)
        letting_go.cancel()

    async def _let_go(self) -> None:
        await asyncio.sleep(self._running.settings.drain_seconds)
        self._running.streams.interrupt()


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; port 0 takes a free one. Raises OSError with cause and remedy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen on {host}:{port}: {reason}; choose another (--port, --host)"
        raise OSError(error.errno, message) from error


@contextlib.asynccontextmanager
async def serving(running: Running, sock: socket.socket) -> AsyncGenerator[asyncio.Task[None]]:
    """The HTTP server of a running master. The task ends on SIGTERM or SIGINT."""
    config = uvicorn.Config(
        create_app(running),
        http=Connection,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=int(running.settings.drain_seconds) + _CUT_AFTER_SECONDS,
    )
    server = _Server(config, running)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    started = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        yield task
    finally:
        started.cancel()
        server.should_exit = True
        await task


async def serve(
    settings: MasterSettings,
    registry: Callable[[], Registry],
    bus: Bus,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Run a master with its HTTP server until SIGTERM or SIGINT."""
    sock = listen(settings.host, settings.port)
    async with run(settings, registry, bus) as running, serving(running, sock) as server:
        url = f"http://{settings.host}:{settings.port}"
        pages = {"console": f"{url}/console"} if settings.console else {}
        log.info("master.ready", url=url, **pages)
        if on_ready is not None:
            on_ready()
        await asyncio.wait({server})
