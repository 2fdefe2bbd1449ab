"""`millrace reconcile`."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console

from bus import rabbitmq
from bus.protocol import Bus
from master.mend import mend, tools
from master.reconcile import Installation, Look, Scope, look
from master.settings import MasterSettings
from millrace import duration, management, models_file, reach
from millrace.commands import options
from millrace.show.reconcile import reconciliation
from queue_schemas.registry import Registry

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def reconcile(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what does not agree.")] = False,
    peek: Annotated[
        int, typer.Option(min=0, metavar="N", help="Read up to N messages of each queue.")
    ] = 0,
    older_than: Annotated[
        str, typer.Option(metavar="SPAN", help="Leave alone what is younger.")
    ] = "10s",
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    database_url: options.DatabaseUrl = None,
    rabbitmq_url: options.RabbitUrl = None,
) -> int:
    """Prove that database and broker agree. The exit code is 1 when they do not.

    It compares counts, which changes nothing. With --peek it reads the waiting messages and
    returns them; that counts as a delivery of each.

    \b
    [bold]Examples[/bold]
      millrace reconcile
      millrace reconcile --fix
      millrace reconcile --peek 1000 --fix
      millrace reconcile --json | jq '.findings[] | {kind, count}'
    """
    given = _Given(
        options.database(database_url),
        options.needed(rabbitmq_url, "RABBITMQ_URL", "--rabbitmq-url"),
        models_file.load(models_file.default_path(models)),
        Scope(duration.seconds(older_than), peek),
    )
    first, after = asyncio.run(_reconcile(given, fix=fix))
    last = after or first
    if as_json:
        typer.echo(json.dumps(_as_json(first, last, fixed=fix), indent=2, default=str))
    else:
        Console().print(reconciliation(first, after))
    return int(bool(last.findings))


@dataclass(frozen=True)
class _Given:
    database_url: str
    rabbitmq_url: str
    registry: Registry
    scope: Scope


async def _reconcile(given: _Given, *, fix: bool) -> tuple[Look, Look | None]:
    # The queue key signs what is read and sent here as it does in a master.
    url = {"DATABASE_URL": SecretStr(given.database_url)}
    settings = MasterSettings(**url)  # type: ignore[arg-type]  # the environment has the rest
    async with (
        reach.migrated(given.database_url, name="millrace reconcile") as engine,
        _bus(given.rabbitmq_url) as bus,
    ):
        at = Installation(engine, bus, given.registry, settings.key_ring)
        first = await look(at, given.scope)
        if not fix or not first.findings:
            return await _with_unacked(first, given.rabbitmq_url), None
        await mend(tools(engine, bus, given.registry, settings), first, given.scope)
        after = await look(at, given.scope)
        return first, await _with_unacked(after, given.rabbitmq_url)


@asynccontextmanager
async def _bus(url: str) -> AsyncGenerator[Bus, None]:
    bus = await rabbitmq.connect(url, name="millrace reconcile")
    try:
        yield bus
    finally:
        await bus.aclose()


async def _with_unacked(seen: Look, url: str) -> Look:
    unacked = await management.unacked(url)
    if unacked is None:
        return seen
    models = tuple(replace(state, unacked=unacked.get(state.queue)) for state in seen.models)
    return replace(seen, models=models)


def _as_json(first: Look, last: Look, *, fixed: bool) -> dict[str, Any]:
    left = {(finding.kind, finding.model) for finding in last.findings}
    return {
        "agrees": not last.findings,
        "models": [asdict(state) for state in last.models],
        "findings": [
            {**asdict(f), "fixed": fixed and (f.kind, f.model) not in left} for f in first.findings
        ],
    }
