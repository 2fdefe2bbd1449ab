"""`millrace status`."""

import asyncio
import json
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from millrace import known
from millrace.client import Master, Refused
from millrace.commands import options
from millrace.problems import Problem
from millrace.show.fleet import fleet

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_REFRESH_SECONDS = 1.0


@app.command()
def status(
    as_json: options.AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> int:
    """Show workers and queues. The exit code is 1 when the master is not ready.

    While its broker or its database is away it shows what is known without.

    \b
    [bold]Examples[/bold]
      millrace status
      millrace status --watch
      millrace status --json | jq '.queues[] | {model, ready}'
    """
    return asyncio.run(_status(url, api_key, as_json=as_json, watch=watch))


async def _status(url: str, api_key: str | None, *, as_json: bool, watch: bool) -> int:
    console = Console()
    async with options.master_client(url, api_key) as master:
        seen = await known.fleet(master)
        if as_json:
            typer.echo(json.dumps(asdict(seen), indent=2, ensure_ascii=False))
        elif watch and console.is_terminal:
            await _watch(master, console, seen)
        else:
            console.print(fleet(seen, master.url, console.width))
    return 0 if seen.ready.get("status") == "ready" else 1


async def _watch(master: Master, console: Console, seen: known.Fleet) -> None:
    problem = ""
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            title = f"{master.url}  {time.strftime('%H:%M:%S')}"
            live.update(fleet(seen, title, console.width, problem), refresh=True)
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                seen, problem = await known.fleet(master), ""
            except Refused:
                raise  # a wrong key stays wrong
            except Problem as away:
                problem = f"trying again: {away}"
