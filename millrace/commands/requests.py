"""`millrace requests`."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from typer.core import TyperGroup

from millrace import past_requests
from millrace.client import Master
from millrace.commands import options
from millrace.show.requests import request_page, requests_table
from queue_schemas.states import RequestState


class _ListByDefault(TyperGroup):
    """Without a command it lists, also with options of the list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        begins = args[0] if args else ""
        if not args or (begins.startswith("-") and begins not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    rich_markup_mode="rich",
    add_completion=False,
    help="List requests, or show one with its plan, its timeline and its cost.",
)

_T = TypeVar("_T")


@app.command("list")
def show_list(
    state: Annotated[RequestState | None, typer.Option(help="Only these.")] = None,
    still_open: Annotated[bool, typer.Option("--open", help="Only what has not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="What is older than this one.")
    ] = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List requests, the newest first.

    \b
    [bold]Examples[/bold]
      millrace requests
      millrace requests --state failed
      millrace requests --json | jq -r '.[].id'
    """
    if state and still_open:
        raise typer.BadParameter("--open and --state exclude each other")
    wanted = "open" if still_open else state

    async def listed(master: Master) -> list[past_requests.Request]:
        older = (await past_requests.find(master, after))["id"] if after else None
        return await past_requests.newest(master, limit, state=wanted, after=older)

    found = _with((url, api_key), listed)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif found:
        console = Console()
        console.print(requests_table(found, console.width))
    else:
        typer.echo("There is no such request." if wanted or after else "Nothing was asked yet.")


@app.command()
def show(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="As `list` shows it; its beginning will do.")
    ],
    answer: Annotated[bool, typer.Option("--answer", help="The answer too.")] = False,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show a request: its parts and when each ran, what it took, why it was done so.

    \b
    [bold]Examples[/bold]
      millrace requests show 3f2a91c4
      millrace requests show 3f2a91c4 --answer
      millrace requests show 3f2a91c4 --json | jq .usage
    """
    record = _with((url, api_key), lambda master: past_requests.find(master, identity))
    if as_json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(
        request_page(record, datetime.now(UTC), console.width, answer=answer), highlight=False
    )


def _with(at: tuple[str, str | None], work: Callable[[Master], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with options.master_client(*at) as master:
            return await work(master)

    return asyncio.run(run())
