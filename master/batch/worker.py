"""A Celery worker."""

import functools
import sys
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from celery.signals import worker_process_shutdown  # type: ignore[import-untyped]  # has no types

from master.batch.app import add_tasks, make_celery
from master.batch.workplace import Workplace
from master.retrieval.ingest import due, ingest
from master.settings import IngestSettings
from queue_schemas.registry import Registry

_MOST_SWEPT: Final = 1000


def work(
    settings: IngestSettings, registry: Callable[[], Registry], *, concurrency: int, beat: bool
) -> None:
    """Run a worker until it is told to stop."""

    @functools.cache
    def workplace() -> Workplace:
        return Workplace(settings, registry)  # in the process that asks first: after the fork

    def ingest_one(tenant: UUID, document: UUID) -> None:
        workplace().run(lambda kept: ingest(kept, tenant, document))

    def sweep() -> list[tuple[UUID, UUID]]:
        return workplace().run(lambda kept: due(kept, _MOST_SWEPT))

    def leave(**_: Any) -> None:
        if workplace.cache_info().currsize:
            workplace().close()

    app = make_celery(settings)
    add_tasks(app, ingest_one, sweep)
    worker_process_shutdown.connect(leave, weak=False)
    app.worker_main(_arguments(concurrency, beat=beat))


def _arguments(concurrency: int, *, beat: bool) -> list[str]:
    # Windows cannot fork.
    pool = ["--pool=solo"] if sys.platform == "win32" else [f"--concurrency={concurrency}"]
    clock = ["--beat"] if beat else []
    # Celery's workers would talk among themselves on transient queues, which newer brokers refuse.
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return ["worker", "--loglevel=WARNING", *pool, *clock, *alone]
