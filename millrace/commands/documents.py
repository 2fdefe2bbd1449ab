"""`millrace documents`."""

import asyncio
import json
from typing import Annotated, Any

import typer
from rich.console import Console

from millrace.commands import options
from millrace.show.documents import document_lines, documents_table

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="List, show, delete or retry documents.",
)

_Id = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]


@app.command("list")
def show_all(
    collection: Annotated[str | None, typer.Option(help="Only of this collection.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only waiting, running, ready or failed ones.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List documents, newest first.

    \b
    [bold]Examples[/bold]
      millrace documents list --state failed
    """
    asked = {"collection": collection, "state": state, "limit": limit}
    query = {name: value for name, value in asked.items() if value is not None}
    found = _ask(url, api_key, "GET", "", query)
    if as_json:
        typer.echo(json.dumps(found["data"], indent=2, ensure_ascii=False))
    elif found["data"]:
        Console().print(documents_table(found["data"]))
    else:
        typer.echo("There is no such document. Add some: millrace ingest PATH")


@app.command()
def show(
    identity: _Id,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show where a document stands.

    \b
    [bold]Examples[/bold]
      millrace documents show 019aa1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b
    """
    found = _ask(url, api_key, "GET", f"/{identity}")
    text = json.dumps(found, indent=2, ensure_ascii=False)
    typer.echo(text if as_json else "\n".join(document_lines(found)))


@app.command()
def delete(
    identity: _Id,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Delete a document; nothing of it is found any more.

    \b
    [bold]Examples[/bold]
      millrace documents delete 019aa1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b
    """
    _ask(url, api_key, "DELETE", f"/{identity}")
    typer.echo(f"{identity} is deleted.")


@app.command()
def retry(
    identity: _Id,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Have a document that failed ingested again.

    \b
    [bold]Examples[/bold]
      millrace documents retry 019aa1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b
    """
    _ask(url, api_key, "POST", f"/{identity}/retry")
    typer.echo(f"{identity} waits to be ingested again.")


def _ask(
    url: str, api_key: str | None, method: str, path: str, query: dict[str, Any] | None = None
) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with options.master_client(url, api_key) as master:
            return await master.send(method, f"/v1/documents{path}", query=query)

    return asyncio.run(ask())
