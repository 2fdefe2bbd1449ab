"""`millrace models`."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from millrace import models_file
from millrace.commands import options
from millrace.show.models import registry_table, served_table

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def models(
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check and show this file instead.")
    ] = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> int:
    """List the models of the running master, or check a models.yaml.

    \b
    [bold]Examples[/bold]
      millrace models
      millrace models --file models.yaml
    """
    console = Console()
    if file is not None:
        return _show_file(file, console, as_json)
    served = asyncio.run(_served(url, api_key))
    if as_json:
        typer.echo(json.dumps(served, indent=2))
    else:
        console.print(served_table(served))
    return 0


def _show_file(file: Path, console: Console, as_json: bool) -> int:
    try:
        registry = models_file.load(file)
    except models_file.ModelsFileError as error:
        for problem in error.problems:
            typer.echo(f"millrace: {problem}", err=True)
        return 1
    if as_json:
        typer.echo(registry.model_dump_json(indent=2))
    else:
        console.print(registry_table(registry, str(file), console.width))
    return 0


async def _served(url: str, api_key: str | None) -> list[dict[str, Any]]:
    async with options.master_client(url, api_key) as master:
        listed: list[dict[str, Any]] = (await master.get("/v1/models"))["data"]
        return listed
