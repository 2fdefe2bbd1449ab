"""The master process: wiring, start and stop."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from importlib.metadata import version

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus
from db.engine import create_engine
from master.api import chat, documents, errors, operations, requests
from master.api.auth import KeyRing
from master.collect import Collector
from master.dispatch import Dispatcher
from master.fleet import FleetView
from master.running import Running
from master.settings import MasterSettings
from master.streams import Streams
from master.sweep import Sweeper
from queue_schemas import topology
from queue_schemas.registry import Registry

log = structlog.get_logger(__name__)


def queues(registry: Registry) -> list[topology.Queue]:
    """Every shared queue of an installation."""
    models = [topology.subtasks(model.slug) for model in registry.chat_models()]
    return [*topology.SHARED, *models]


@contextlib.asynccontextmanager
async def run(
    settings: MasterSettings, registry: Callable[[], Registry], bus: Bus
) -> AsyncGenerator[Running, None]:
    """A running master without its HTTP server: the loops live as long as the context."""
    engine = create_engine(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool,
        name=f"millrace master {settings.replica}",
    )
    try:
        async with _loops(settings, registry, bus, engine) as running:
            yield running
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def _loops(
    settings: MasterSettings, registry: Callable[[], Registry], bus: Bus, engine: AsyncEngine
) -> AsyncGenerator[Running, None]:
    await bus.declare(queues(registry()))
    view = FleetView(registry, settings.window)
    dispatcher = Dispatcher(engine, bus, view, settings.signing_key)
    streams = Streams(engine, bus, settings.replica, settings.signing_key, dispatcher.nudge)
    collector = Collector(engine, bus, view, dispatcher, streams, settings)
    sweeper = Sweeper(engine, bus, view, dispatcher, streams, settings)
    worker_seconds = settings.lease_seconds
    await view.refresh(engine, worker_seconds)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(streams.run(), name="streams"),
            group.create_task(collector.run(), name="collect"),
            group.create_task(dispatcher.run(settings.dispatch_seconds), name="dispatch"),
            group.create_task(sweeper.run(), name="sweep"),
            group.create_task(
                view.watch(engine, settings.fleet_seconds, worker_seconds), name="fleet"
            ),
        ]
        try:
            yield Running(settings, engine, bus, view, dispatcher, streams)
        finally:
            for task in tasks:
                task.cancel()


def create_app(running: Running) -> FastAPI:
    """The HTTP application of a running master."""
    app = FastAPI(
        title="Millrace",
        version=version("millrace"),
        description="One chat request becomes many durable subtasks, and still one stream.",
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.running = running
    app.state.ring = KeyRing(running.engine, running.settings.key_cache_seconds)
    app.state.started = time.time()
    for module in (chat, requests, operations):
        app.include_router(module.router)
    errors.install(app)
    documents.install(app)
    return app


async def serve(settings: MasterSettings, registry: Callable[[], Registry], bus: Bus) -> None:
    """Run a master with its HTTP server until SIGTERM or SIGINT."""
    async with run(settings, registry, bus) as running:
        config = uvicorn.Config(
            create_app(running),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
        log.info("master.ready", url=f"http://{settings.host}:{settings.port}")
        await uvicorn.Server(config).serve()
