"""`millrace worker`."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Coroutine
from importlib import import_module
from pathlib import Path
from typing import Annotated, TypeVar

import structlog
import typer

from bus import rabbitmq
from bus.connection import NotABroker
from bus.protocol import BusUnavailable
from bus.rabbitmq import RabbitBus
from millrace import event_loop, logs, models_file, tracing
from millrace.commands import options
from millrace.problems import Problem
from queue_schemas.registry import Model
from worker import consumer
from worker.providers.protocol import Provider, ProviderError
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings
from worker.standing import Obstacle, Standing

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

_BROKER_PAUSE_SECONDS = 2.0
_PARENT_SECONDS = 2.0
"""Between two looks whether it is there."""

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def worker(
    context: typer.Context,
    model: Annotated[str, typer.Option(metavar="NAME", help="Which model of the registry.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="This worker's name; unique.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for an engine and a broker that are not ready yet.")
    ] = False,
    rabbitmq_url: options.RabbitUrl = None,
    models: options.ModelsFile = None,
) -> int:
    """Run one worker, which serves one model. Start as many as the engine can feed.

    SIGTERM or Ctrl-C drains it: running subtasks are finished, new ones are left to others.
    With MILLRACE_HEALTH_PORT it answers /live, /ready and /metrics there.

    \b
    [bold]Examples[/bold]
      millrace worker --model llama3.2:3b
      OLLAMA_HOST=gpu-2 RABBITMQ_URL=amqp://mq millrace worker --model codellama:34b-instruct
    """
    rabbitmq_url = options.needed(rabbitmq_url, "RABBITMQ_URL", "--rabbitmq-url")
    entry = _entry(model, models_file.default_path(models))
    settings = WorkerSettings(**({"name": name} if name else {}))  # type: ignore[arg-type]
    logs.configure("worker", debug=options.debug(context), file=f"worker-{entry.slug}")
    interrupted: list[int] = []
    with tracing.traced(settings, "millrace-worker", settings.name):
        event_loop.run(_work(entry, settings, rabbitmq_url, interrupted, wait=wait))
    return 130 if signal.SIGINT in interrupted else 0


def _entry(name: str, path: Path) -> Model:
    registry = models_file.load(path)
    found = registry.get(name)
    if found is None:
        known = ", ".join(model.name for model in registry.models)
        raise Problem(f"{path} has no model {name!r}; it has {known}.")
    return found


async def _work(
    model: Model,
    settings: WorkerSettings,
    rabbitmq_url: str,
    interrupted: list[int],
    *,
    wait: bool,
) -> None:
    stop, seen = event_loop.stop_on_signals()
    provider = _provider(model, settings)
    standing = Standing(settings.name, model)
    try:
        async with (
            _answering_probes(settings, standing),
            _telling_cost(settings, standing),
            _ending_with(settings.parent, stop),
        ):
            if not wait:
                await _unless(stop, _check(model, provider))
            bus = await _unless(stop, _connected(rabbitmq_url, settings, standing, wait=wait))
            if bus is not None:
                async with contextlib.aclosing(bus):
                    await consumer.run(bus, model, settings, provider, stop, standing)
    finally:
        interrupted += seen
        await provider.aclose()


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, _T]) -> _T | None:
    """Do some work; None when it was given up because the worker is to stop."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopping.cancel()
        task.cancel()
        await asyncio.wait({task})


async def _connected(
    url: str, settings: WorkerSettings, standing: Standing, *, wait: bool
) -> RabbitBus:
    reason = ""
    while True:
        try:
            return await rabbitmq.connect(url, name=f"worker {settings.name}")
        except BusUnavailable as error:
            if isinstance(error, NotABroker) or not wait:
                raise
            standing.waits_for(Obstacle.BROKER, str(error))
            if str(error) != reason:  # not every two seconds
                reason = str(error)
                _log.warning("worker.no_broker", reason=reason)
            await asyncio.sleep(_BROKER_PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def _ending_with(parent: int | None, stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Drain when the process that started this one is gone, for which it has no signal."""
    if parent is None:
        yield
        return
    watching = asyncio.create_task(_watch(parent, stop), name="parent")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _watch(parent: int, stop: asyncio.Event) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110  the end of a process is no event of this loop
        await asyncio.sleep(_PARENT_SECONDS)
    _log.warning("worker.orphaned", parent=parent)
    stop.set()


@contextlib.asynccontextmanager
async def _answering_probes(
    settings: WorkerSettings, standing: Standing
) -> AsyncGenerator[None, None]:
    if not settings.health_port:
        yield
        return
    health = import_module("worker.health")  # an HTTP server, which most workers do without
    try:
        sock = health.listen(settings.health_host, settings.health_port)
    except OSError as error:
        raise Problem(str(error)) from error
    async with health.serving(standing, sock):
        yield


@contextlib.asynccontextmanager
async def _telling_cost(settings: WorkerSettings, standing: Standing) -> AsyncGenerator[None, None]:
    if not settings.pod_deletion_cost:
        yield
        return
    pod_cost = import_module("worker.pod_cost")  # an HTTP client, as above
    api = pod_cost.api_server(os.environ)
    cost = pod_cost.PodCost(api, settings.pod_namespace, settings.pod_name)
    telling = asyncio.create_task(cost.run(standing), name="pod cost")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


def _provider(model: Model, settings: WorkerSettings) -> Provider:
    try:
        return make_provider(model, offline=settings.offline)
    except ProviderError as error:
        raise Problem(f"{model.name} cannot be served: {error.message}") from error


async def _check(model: Model, provider: Provider) -> None:
    try:
        await provider.check()
    except ProviderError as error:
        raise Problem(f"{model.name} cannot be served: {error.message}") from error
