"""`millrace collections`."""

import asyncio
import json
from typing import Annotated, Any

import typer
from rich.console import Console

from millrace.commands import options
from millrace.show.documents import collections_table

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="List, show or delete collections of documents.",
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="As `list` shows it.")]


@app.command("list")
def show_all(
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List collections.

    \b
    [bold]Examples[/bold]
      millrace collections list --json
    """
    found = _ask(url, api_key, "GET", "")["data"]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif found:
        Console().print(collections_table(found))
    else:
        typer.echo("There is no collection yet. Make one: millrace ingest PATH")


@app.command()
def show(
    name: _Name,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show a collection's settings and counts, as JSON.

    \b
    [bold]Examples[/bold]
      millrace collections show handbook
    """
    found = _ask(url, api_key, "GET", f"/{name}")
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


@app.command()
def delete(
    name: _Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Delete a collection with all of its documents.

    \b
    [bold]Examples[/bold]
      millrace collections delete letters --yes
    """
    if not yes:
        typer.confirm(f"Delete {name!r} with all of its documents?", abort=True)
    _ask(url, api_key, "DELETE", f"/{name}")
    typer.echo(f"{name} is deleted.")


def _ask(url: str, api_key: str | None, method: str, path: str) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with options.master_client(url, api_key) as master:
            return await master.send(method, f"/v1/collections{path}")

    return asyncio.run(ask())
