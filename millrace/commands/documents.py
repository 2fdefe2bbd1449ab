"""`millrace documents`."""

import asyncio
import contextlib
import json
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console

from millrace.client import Master
from millrace.commands import options
from millrace.problems import Problem, one_line
from millrace.show.documents import document_lines, documents_table

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="List, show, delete or retry documents.",
)

_SHORTEST_ID = 6
_CANDIDATES = 20

_Id = Annotated[
    str, typer.Argument(metavar="ID", help="As `list` shows it; its beginning or a name will do.")
]


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
      millrace documents show 019aa1b2
      millrace documents show decisions/0001.md
    """
    found = _ask_one(url, api_key, "GET", identity)
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
      millrace documents delete decisions/0001.md
    """
    gone = _ask_one(url, api_key, "DELETE", identity)
    typer.echo(f"{_called(identity, gone)} is deleted.")


@app.command()
def retry(
    identity: _Id,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Have a document that failed ingested again.

    \b
    [bold]Examples[/bold]
      millrace documents retry 019aa1b2
    """
    found = _ask_one(url, api_key, "POST", identity, "/retry")
    typer.echo(f"{_called(identity, found)} waits to be ingested again.")


def _ask(
    url: str, api_key: str | None, method: str, path: str, query: dict[str, Any] | None = None
) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with options.master_client(url, api_key) as master:
            return await master.send(method, f"/v1/documents{path}", query=query)

    return asyncio.run(ask())


def _ask_one(
    url: str, api_key: str | None, method: str, wanted: str, path: str = ""
) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with options.master_client(url, api_key) as master:
            identity = await _find(master, wanted)
            return await master.send(method, f"/v1/documents/{identity}{path}")

    return asyncio.run(ask())


async def _find(master: Master, wanted: str) -> str:
    """The id of the one document that an id, its beginning or a name means. Raises `Problem`."""
    with contextlib.suppress(ValueError):
        return str(UUID(wanted))
    query = {"match": wanted, "limit": _CANDIDATES}
    found = await master.send("GET", "/v1/documents", query=query)
    match found["data"]:
        case [only]:
            return str(only["id"])
        case []:
            raise Problem(
                f"no document is called {wanted!r}, and no id begins so; at least "
                f"{_SHORTEST_ID} characters of it are wanted. See `documents list`."
            )
        case several:
            for each in several:
                where = f"{each['collection']}, {each['state']}"
                typer.echo(f"{each['id']}  {one_line(each['name'])} ({where})", err=True)
            more = " at least" if found["has_more"] else ""
            raise Problem(f"{wanted!r} may be{more} {len(several)} documents. Give an id.")


def _called(wanted: str, found: dict[str, Any]) -> str:
    """What was asked for, and which that is unless it was said."""
    identity = str(found["id"])
    return identity if wanted.lower() == identity else f"{one_line(wanted)} ({identity})"
