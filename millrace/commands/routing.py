"""`millrace routing`."""

import asyncio
import json
from typing import Annotated, Any

import typer
from rich.console import Console

from millrace.commands import options
from millrace.show.routing import routing_table

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.callback(invoke_without_command=True)
def routing(
    context: typer.Context,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show which model does what, and what people said of each.

    \b
    [bold]Examples[/bold]
      millrace routing
      millrace routing --json | jq '.data[] | {kind, chosen}'
      millrace routing reset --kind code
    """
    if context.invoked_subcommand is not None:
        return
    found = asyncio.run(_ask(url, api_key, "GET"))
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        Console().print(routing_table(found))


@app.command()
def reset(
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="answer, rag, code or part; none: all.")
    ] = None,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Forget what was said so far: the registry's order holds until others are judged better.

    \b
    [bold]Examples[/bold]
      millrace routing reset
      millrace routing reset --kind code
    """
    asyncio.run(_ask(url, api_key, "DELETE", kind))
    typer.echo(f"Routing of {kind or 'all kinds of work'} starts anew.")


async def _ask(
    url: str, api_key: str | None, method: str, kind: str | None = None
) -> dict[str, Any]:
    query = {"kind": kind} if kind else None
    async with options.master_client(url, api_key) as master:
        return await master.send(method, "/v1/routing", query=query)
