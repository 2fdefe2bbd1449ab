"""`millrace worker`."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from bus import rabbitmq
from millrace import event_loop, logs, models_file
from millrace.commands import options
from millrace.problems import Problem
from queue_schemas import topology
from queue_schemas.registry import Model
from worker import consumer
from worker.providers.protocol import Provider, ProviderError
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def worker(
    context: typer.Context,
    model: Annotated[str, typer.Option(metavar="NAME", help="Which model of the registry.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="This worker's name; unique.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for an engine that is not ready yet.")
    ] = False,
    rabbitmq_url: options.RabbitUrl = None,
    models: options.ModelsFile = None,
) -> int:
    """Run one worker, which serves one model. Start as many as the engine can feed.

    SIGTERM or Ctrl-C drains it: running subtasks are finished, new ones are left to others.

    \b
    [bold]Examples[/bold]
      millrace worker --model llama3.2:3b
      OLLAMA_HOST=gpu-2 RABBITMQ_URL=amqp://mq millrace worker --model codellama:34b-instruct
    """
    rabbitmq_url = options.needed(rabbitmq_url, "RABBITMQ_URL", "--rabbitmq-url")
    entry = _entry(model, models_file.default_path(models))
    settings = WorkerSettings(**({"name": name} if name else {}))  # type: ignore[arg-type]
    logs.configure(debug=options.debug(context))
    interrupted: list[int] = []
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
    try:
        if not wait:
            await _check(model, provider)
        bus = await rabbitmq.connect(rabbitmq_url, name=f"worker {settings.name}")
        try:
            # So that a worker may be started before the first master.
            await bus.declare([*topology.SHARED, topology.subtasks(model.slug)])
            await consumer.run(bus, model, settings, provider, stop)
        finally:
            await bus.aclose()
    finally:
        interrupted += seen
        await provider.aclose()


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
