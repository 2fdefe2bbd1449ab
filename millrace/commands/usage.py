"""`millrace usage`."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from db import usage as ledger
from db.usage import By, Spent
from master.bill_lines import Line, bill_lines, total
from millrace import duration, models_file, reach
from millrace.commands import options
from millrace.show.usage import usage_table

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def usage(
    by: Annotated[By, typer.Option(help="What a line stands for.")] = By.TENANT,
    since: Annotated[str, typer.Option(metavar="SPAN", help="90m, 12h, 7d.")] = "7d",
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant.")] = None,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Show what was spent: tokens, engine time and cost, at the prices of models.yaml.

    Work that failed, was cancelled or came late was spent as well; it is shown apart. A worker
    that was killed reports nothing, so what it spent on its last subtasks is not known.

    \b
    [bold]Examples[/bold]
      millrace usage
      millrace usage --by user --tenant acme --since 30d
      millrace usage --by day --json | jq '.lines[] | {key, cost: .counted.cost}'
    """
    url = options.database(database_url)
    registry = models_file.load(models_file.default_path(models))
    spent = asyncio.run(_spent(url, by, duration.seconds(since), tenant))
    lines = bill_lines(spent, registry)
    if as_json:
        typer.echo(json.dumps(_as_json(lines, by, registry.currency), indent=2, ensure_ascii=False))
    else:
        Console().print(usage_table(lines, by, since, registry.currency))


async def _spent(url: str, by: By, since_seconds: float, tenant: str | None) -> list[Spent]:
    async with reach.migrated(url, name="millrace usage") as engine, engine.connect() as connection:
        return await ledger.spent(connection, by, since_seconds, tenant)


def _as_json(lines: Sequence[Line], by: By, currency: str) -> dict[str, Any]:
    return {
        "by": by,
        "currency": currency,
        "lines": [_line(line) for line in lines],
        "total": _line(total(lines)),
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "key": line.key,
        "counted": line.counted.as_json(),
        "not_counted": line.not_counted.as_json(),
        "fates": {fate: sums.as_json() for fate, sums in line.fates.items()},
    }
