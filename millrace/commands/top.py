"""`millrace top`."""

import asyncio
import json
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from millrace import known, past_requests
from millrace.client import Master, Refused
from millrace.commands import options
from millrace.key_presses import key_presses
from millrace.problems import Problem
from millrace.show.top import Look, Order, Shown, Top

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_REFRESH_SECONDS = 1.0
_MOST_REQUESTS = 50
_ALL_LINES = 1000
_STATES = {Shown.ALL: None, Shown.OPEN: "open", Shown.FAILED: "failed"}


@app.command()
def top(
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame; also where there is no terminal.")
    ] = False,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> int:
    """Watch queues, workers and the newest requests, live.

    q or Ctrl-C quits, s sorts the queues, tab shows all requests, those that are open or those
    that failed. While the broker or the database is away it shows what is known without.
    With --once the exit code is 1 when the master is not ready.

    \b
    [bold]Examples[/bold]
      millrace top
      millrace top --once
      millrace top --json | jq '.queues[] | {model, db_ready}'
    """
    return asyncio.run(_top(url, api_key, once=once, as_json=as_json))


async def _top(url: str, api_key: str | None, *, once: bool, as_json: bool) -> int:
    console = Console()
    async with options.master_client(url, api_key) as master:
        top = Top(master.url)
        if console.is_terminal and not (once or as_json):
            await _watch(master, console, top)
            return 0
        look = await _look(master, top.shown)
    if as_json:
        typer.echo(json.dumps(asdict(look), indent=2, ensure_ascii=False))
    else:
        top.take(look)
        clock = time.strftime("%H:%M:%S")
        console.print(top.render(clock, console.width, _ALL_LINES, keys=False))
    return 0 if look.ready.get("status") == "ready" else 1


async def _look(master: Master, shown: Shown) -> Look:
    unknown: dict[str, str] = {}
    fleet, requests = await asyncio.gather(
        known.fleet(master), known.answer("requests", _requests(master, shown), unknown)
    )
    unknown = {**fleet.unknown, **unknown}
    return Look(**{**vars(fleet), "unknown": unknown}, requests=requests)


async def _requests(master: Master, shown: Shown) -> list[past_requests.Request] | None:
    try:
        return await past_requests.newest(master, _MOST_REQUESTS, state=_STATES[shown])
    except Refused as refusal:
        if refusal.status not in {404, 405}:
            raise
        return None  # an older master, which has no such list


async def _watch(master: Master, console: Console, top: Top) -> None:
    with Live(console=console, auto_refresh=False, screen=True) as live, key_presses() as pressed:
        while True:
            try:
                top.take(await _look(master, top.shown))
            except Refused:
                if top.look is None:
                    raise  # a wrong key stays wrong
                top.problem = "trying again: the master refuses"
            except Problem as problem:
                top.problem = f"trying again: {problem}"
            until = time.monotonic() + _REFRESH_SECONDS
            while (left := until - time.monotonic()) > 0:
                frame = top.render(time.strftime("%H:%M:%S"), console.width, console.height)
                live.update(frame, refresh=True)
                if not _obey(top, await _next(pressed, left)):
                    return


async def _next(pressed: asyncio.Queue[str], seconds: float) -> str:
    """The next key; empty if none was pressed in time."""
    try:
        async with asyncio.timeout(seconds):
            return await pressed.get()
    except TimeoutError:
        return ""


def _obey(top: Top, key: str) -> bool:
    """Do what a key says. False: to quit."""
    match key:
        case "q" | "Q":
            return False
        case "s":
            top.order = Order.DEPTH if top.order is Order.REGISTRY else Order.REGISTRY
        case "\t":
            every = list(Shown)
            top.shown = every[(every.index(top.shown) + 1) % len(every)]
        case _:
            pass
    return True
