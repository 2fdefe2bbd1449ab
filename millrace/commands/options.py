"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from millrace import home
from millrace.client import Master, is_loopback
from millrace.embedded_postgres import running
from millrace.problems import Problem

MasterUrl = Annotated[
    str,
    typer.Option("--url", envvar="MILLRACE_URL", metavar="URL", help="Address of the master."),
]
DEFAULT_MASTER_URL = "http://127.0.0.1:8000"

ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="MILLRACE_API_KEY", metavar="KEY", help="Your API key."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", envvar="DATABASE_URL", metavar="URL", help="Postgres."),
]
RabbitUrl = Annotated[
    str | None,
    typer.Option("--rabbitmq-url", envvar="RABBITMQ_URL", metavar="URL", help="RabbitMQ."),
]
ModelsFile = Annotated[
    Path | None,
    typer.Option(
        "--models", envvar="MILLRACE_MODELS", metavar="FILE", help="The registry, a models.yaml."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def master_client(url: str, api_key: str | None) -> Master:
    """A client; on this machine, the key that `millrace up` keeps is used where none is given."""
    return Master(url, api_key or (home.kept_key() if is_loopback(url) else None))


def needed(value: str | None, variable: str, option: str) -> str:
    """A setting that this command cannot do without."""
    if not value:
        raise Problem(f"{variable} is not set. Set it or give {option}; see `millrace --help`.")
    return value


def database(url: str | None) -> str:
    """The database: the one that was named, else that of the `millrace up` of this machine.

    Not for servers: two with different queues would take each other's work.
    """
    found = url or running(home.database())
    if not found:
        raise Problem(
            "DATABASE_URL is not set, and no `millrace up` runs here with a database of its own. "
            "Set it or give --database-url; a master's /console shows keys, usage and dead "
            "letters without it."
        )
    return found


def debug(context: typer.Context) -> bool:
    """Whether `millrace --debug` was said."""
    return bool(context.find_root().params.get("debug"))
