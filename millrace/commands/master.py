"""`millrace master`."""

import asyncio
from typing import Annotated

import typer
from pydantic import SecretStr

from bus import rabbitmq
from master import app as master_app
from master.settings import MasterSettings
from millrace import event_loop, logs, models_file, reach, tracing
from millrace.commands import options
from millrace.registry_file import RegistryFile

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def master(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=0, max=65535)] = None,
    database_url: options.DatabaseUrl = None,
    rabbitmq_url: options.RabbitUrl = None,
    models: options.ModelsFile = None,
) -> int:
    """Run one master: the API, planning and dispatching. Any number may run at the same time.

    It needs Postgres, migrated, and RabbitMQ. The registry is read again when its file changes.

    \b
    [bold]Examples[/bold]
      millrace master --host 0.0.0.0 --port 8000
      DATABASE_URL=postgresql://db/millrace RABBITMQ_URL=amqp://mq millrace master
    """
    database_url = options.needed(database_url, "DATABASE_URL", "--database-url")
    rabbitmq_url = options.needed(rabbitmq_url, "RABBITMQ_URL", "--rabbitmq-url")
    given = {"host": host, "port": port, "DATABASE_URL": SecretStr(database_url)}
    said = {name: value for name, value in given.items() if value is not None}
    settings = MasterSettings(**said)  # type: ignore[arg-type]  # the environment has the rest
    registry = RegistryFile(models_file.default_path(models))
    logs.configure("master", debug=options.debug(context))
    with tracing.traced(settings, "millrace-master", settings.replica):
        return event_loop.run(_serve(settings, registry, rabbitmq_url))


async def _serve(settings: MasterSettings, registry: RegistryFile, rabbitmq_url: str) -> None:
    name = f"master {settings.replica}"
    async with reach.migrated(settings.database_url.get_secret_value(), name=name):
        pass  # only to say in one line what is wrong with it, before anything else starts
    bus = await rabbitmq.connect(rabbitmq_url, name=name)
    watching = asyncio.create_task(registry.watch())
    try:
        await master_app.serve(settings, lambda: registry.current, bus)
    finally:
        watching.cancel()
        await bus.aclose()
