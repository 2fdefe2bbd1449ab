"""`millrace celery`."""

import asyncio
import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from master.settings import CelerySettings
from millrace import logs, models_file, reach, tracing
from millrace.commands import options
from millrace.problems import Problem, reason
from millrace.registry_file import RegistryFile
from queue_schemas.registry import Registry

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_Broker = Annotated[
    str | None,
    typer.Option(
        "--broker-url", envvar="MILLRACE_CELERY_BROKER_URL", metavar="URL", help="Its own vhost."
    ),
]

_AliveFile = Annotated[
    Path | None,
    typer.Option(
        "--alive-file",
        envvar="MILLRACE_ALIVE_FILE",
        metavar="FILE",
        help="Touched every 10 s while it lives, for probes.",
    ),
]


@app.command()
def celery(
    context: typer.Context,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    beat: Annotated[
        bool, typer.Option("--beat", help="Also sweep and learn, from time to time.")
    ] = False,
    broker_url: _Broker = None,
    database_url: options.DatabaseUrl = None,
    rabbitmq_url: options.RabbitUrl = None,
    models: options.ModelsFile = None,
    alive_file: _AliveFile = None,
) -> None:
    """Run one Celery worker, which ingests documents for the masters. Start as many as you like.

    One of them should run with --beat: it finds what the queue does not know, and has what people
    said of answers looked at. SIGTERM lets it finish what it does; a worker that is killed loses
    nothing, another goes on. With --rabbitmq-url it tells of rules that changed.

    \b
    [bold]Examples[/bold]
      MILLRACE_CELERY_BROKER_URL=amqp://mq/celery millrace celery --concurrency 4 --beat
    """
    database_url = options.needed(database_url, "DATABASE_URL", "--database-url")
    broker_url = options.needed(broker_url, "MILLRACE_CELERY_BROKER_URL", "--broker-url")
    if beat and sys.platform == "win32":
        raise Problem("--beat does not work on Windows; run it on another machine.")
    given = {"DATABASE_URL": SecretStr(database_url), "celery_broker_url": SecretStr(broker_url)}
    settings = CelerySettings(**given)  # type: ignore[arg-type]  # the environment has the rest
    tracing.check(settings)
    file = RegistryFile(models_file.default_path(models))
    logs.configure("celery", debug=options.debug(context))

    def registry() -> Registry:
        file.refresh()
        return file.current

    if settings.metrics_port:
        _keep_numbers()
    worker = import_module("master.batch.worker")  # first of all: Celery may not be installed
    if alive_file is not None:
        _prepare(alive_file)
    asyncio.run(_check(database_url))
    with _metrics(settings):
        worker.work(
            settings,
            registry,
            concurrency=concurrency,
            beat=beat,
            events_url=rabbitmq_url,
            alive_file=alive_file,
        )


def _keep_numbers() -> None:
    """Give the pool's processes a folder for their numbers; the library looks when imported."""
    try:
        folder = tempfile.mkdtemp(prefix="millrace-metrics-")
    except OSError as error:
        raise Problem(f"MILLRACE_METRICS_PORT needs a folder: {reason(error)}.") from error
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and no process of the pool
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _metrics(settings: CelerySettings) -> Iterator[None]:
    """Serve them while the block runs, if they are wanted. Raises `Problem`."""
    with ExitStack() as stack:
        if settings.metrics_port:
            metrics = import_module("master.batch.metrics")
            serving = metrics.serving(settings.metrics_host, settings.metrics_port)
            try:
                stack.enter_context(serving)
            except OSError as error:
                at = f"{settings.metrics_host}:{settings.metrics_port}"
                why = reason(error)
                raise Problem(f"MILLRACE_METRICS_PORT: cannot listen on {at}: {why}.") from error
        yield


def _prepare(alive_file: Path) -> None:
    alive = import_module("master.batch.alive")  # Celery may not be installed, as above
    try:
        alive.prepare(alive_file)
    except OSError as error:
        why = reason(error)
        raise Problem(f"MILLRACE_ALIVE_FILE: cannot write {alive_file}: {why}.") from error


async def _check(database_url: str) -> None:
    """Raises `Problem`: Celery's processes would only say it again with every document."""
    async with reach.migrated(database_url, name="millrace celery"):
        pass
