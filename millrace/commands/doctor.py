"""`millrace doctor`."""

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from millrace import models_file
from millrace.commands import options
from millrace.doctor import Surroundings, Verdict, examine
from millrace.show.checks import checks

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def doctor(
    as_json: options.AsJson = False,
    database_url: options.DatabaseUrl = None,
    rabbitmq_url: options.RabbitUrl = None,
    ollama_host: Annotated[
        str | None, typer.Option(envvar="OLLAMA_HOST", metavar="HOST", help="Ollama.")
    ] = None,
    models: options.ModelsFile = None,
    port: Annotated[
        int, typer.Option(envvar="MILLRACE_PORT", min=1, max=65535, help="Port of the master.")
    ] = 8000,
) -> int:
    """Check what Millrace needs. The exit code is 1 when something that is used does not work.

    \b
    [bold]Examples[/bold]
      millrace doctor
      DATABASE_URL=postgresql://db/millrace RABBITMQ_URL=amqp://mq millrace doctor
      millrace doctor --json | jq '.[] | select(.verdict == "fail")'
    """
    # Libraries report refused connections themselves; here they are findings.
    logging.disable(logging.CRITICAL)
    path = models_file.default_path(models)
    around = Surroundings(database_url, rabbitmq_url, ollama_host, path, port)
    findings = asyncio.run(examine(around))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        Console().print(checks(findings))
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))
