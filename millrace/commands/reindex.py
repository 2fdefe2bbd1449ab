"""`millrace reindex`."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from millrace.client import Master
from millrace.commands import options
from millrace.ingesting import until_done
from millrace.show.documents import failures_table
from millrace.show.ingesting import counting
from millrace.show.numbers import plural

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def reindex(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which collection.")],
    embedding_model: Annotated[
        str | None,
        typer.Option("--embedding-model", metavar="NAME", help="Change to this model."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Change to this way: dense, sparse or hybrid."),
    ] = None,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> int:
    """Cut and embed a collection anew, and wait for it. The exit code is 1 when anything failed.

    Needed when its embedding model was changed, or to have vectors where there were words only.
    What is stored of a document is found as before until it is done, except by vectors of another
    model.

    \b
    [bold]Examples[/bold]
      millrace reindex handbook
      millrace reindex handbook --embedding-model nomic-embed-text
      millrace reindex handbook --strategy hybrid
    """
    said = {"embedding_model": embedding_model, "strategy": strategy}
    changes = {key: value for key, value in said.items() if value is not None}
    return asyncio.run(_reindex(url, api_key, name, changes))


async def _reindex(url: str, api_key: str | None, name: str, changes: dict[str, str]) -> int:
    console = Console()
    async with options.master_client(url, api_key) as master:
        if changes:
            await master.send("PATCH", f"/v1/collections/{name}", changes)
        else:
            await master.send("POST", f"/v1/collections/{name}/reindex")
        with counting(console) as on_change:
            counts = await until_done(master, name, on_change)
        failures = await _failures(master, name) if counts["failed"] else []
    console.print(f"{plural(counts['ready'], 'document')} ready, {counts['failed']} failed.")
    if failures:
        console.print(failures_table(failures))
    return 1 if failures else 0


async def _failures(master: Master, name: str) -> list[tuple[str, str, str]]:
    query = {"collection": name, "state": "failed", "limit": 200}
    found = (await master.send("GET", "/v1/documents", query=query))["data"]
    return [(doc["name"], doc["error"]["code"], doc["error"]["message"]) for doc in found]
