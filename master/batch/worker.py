"""A Celery worker."""

import asyncio
import contextlib
import functools
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog
from celery.signals import worker_process_shutdown  # type: ignore[import-untyped]  # has no types
from sqlalchemy.ext.asyncio import AsyncEngine

from bus import rabbitmq, tracing
from bus.protocol import BusError
from master.batch import metrics
from master.batch.alive import add_alive_file
from master.batch.app import add_tasks, make_celery
from master.batch.workplace import Workplace
from master.learning.rounds import Rounds
from master.learning.rulings import tell
from master.outages import said
from master.retrieval.ingest import due, ingest
from master.settings import IngestSettings
from queue_schemas.registry import Registry

log = structlog.get_logger(__name__)

_MOST_SWEPT: Final = 1000
_EVENTS_SECONDS: Final = 10.0
"""For telling of what was learned, which nothing depends on."""


def work(
    settings: IngestSettings,
    registry: Callable[[], Registry],
    *,
    concurrency: int,
    beat: bool,
    events_url: str | None = None,
    alive_file: Path | None = None,
) -> None:
    """Run a worker until it is told to stop. What it learns is told at the broker of the events.

    While it lives, it touches the file.
    """

    @functools.cache
    def workplace() -> Workplace:
        # In the process that asks first: after the fork.
        instance = f"{socket.gethostname()}-{os.getpid()}"
        share = settings.tracing_share
        tracing.turn_on(settings.tracing, "millrace-celery", instance=instance, share=share)
        return Workplace(settings, registry)

    def ingest_one(tenant: UUID, document: UUID) -> None:
        with metrics.counted("ingest"):
            workplace().run(lambda kept: ingest(kept, tenant, document))

    def sweep() -> list[tuple[UUID, UUID]]:
        with metrics.counted("sweep"):
            return workplace().run(lambda kept: due(kept, _MOST_SWEPT))

    rounds = Rounds(settings)

    def learn_once() -> None:
        with metrics.counted("learn"):
            workplace().run(lambda kept: _learn(rounds, kept.engine, events_url))

    def leave(**_: Any) -> None:
        if workplace.cache_info().currsize:
            workplace().close()
            tracing.shut_down()

    app = make_celery(settings)
    add_tasks(app, ingest_one, sweep, learn_once)
    if alive_file is not None:
        add_alive_file(app, alive_file)
    worker_process_shutdown.connect(leave, weak=False)
    app.worker_main(_arguments(concurrency, beat=beat))


async def _learn(rounds: Rounds, engine: AsyncEngine, events_url: str | None) -> None:
    changed = await rounds.next(engine)
    if not changed or events_url is None:
        return
    try:
        async with asyncio.timeout(_EVENTS_SECONDS):
            bus = await rabbitmq.connect(events_url, name="millrace celery")
            async with contextlib.aclosing(bus):
                await tell(bus, changed)
    except (BusError, TimeoutError) as error:
        log.warning("learning.untold", count=len(changed), error=said(error))


def _arguments(concurrency: int, *, beat: bool) -> list[str]:
    # Windows cannot fork.
    pool = ["--pool=solo"] if sys.platform == "win32" else [f"--concurrency={concurrency}"]
    clock = ["--beat"] if beat else []
    # Celery's workers would talk among themselves on transient queues, which newer brokers refuse.
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return ["worker", "--loglevel=WARNING", *pool, *clock, *alone]
