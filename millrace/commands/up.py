"""`millrace up`."""

import os
from typing import Annotated

import typer
from rich.console import Console

from millrace import event_loop, home, logs
from millrace.commands import options
from millrace.up import UpOptions
from millrace.up import up as run_up

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def up(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=0, max=65535)] = None,
    models: options.ModelsFile = None,
    database_url: options.DatabaseUrl = None,
    rabbitmq_url: options.RabbitUrl = None,
) -> int:
    """Start everything on this machine, until Ctrl-C.

    Without settings: an embedded Postgres, an in-process queue, a worker for each model.

    Each part gives way to a setting: a database, a RabbitMQ, a models.yaml, an Ollama.

    \b
    [bold]Examples[/bold]
      millrace up
      millrace up --port 9000 --models models.yaml
      RABBITMQ_URL=amqp://localhost millrace up
    """
    # Worker processes that `up` starts read them from the environment too.
    for name, value in (("DATABASE_URL", database_url), ("RABBITMQ_URL", rabbitmq_url)):
        if value:
            os.environ[name] = value
    # Theirs to write to as well; empty: no files.
    os.environ.setdefault("MILLRACE_LOG_FOLDER", str(home.logs()))
    logs.configure("up", debug=options.debug(context))
    return event_loop.run(run_up(UpOptions(host, port, models), Console()))
