"""`millrace keys`."""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from db import tenants
from db.tenants import StoredKey
from master.api.keys import new_key, prefix_of
from millrace import reach
from millrace.commands import options
from millrace.problems import Problem

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="Create, list and revoke API keys. A key belongs to a tenant.",
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, as `list` shows it.")],
    tenant: Annotated[str, typer.Option(help="Whose it is; made if new.")] = "default",
    database_url: options.DatabaseUrl = None,
) -> None:
    """Create a key and print it. It is shown this once and never again.

    \b
    [bold]Examples[/bold]
      millrace keys create "Open WebUI"
      MILLRACE_API_KEY=$(millrace keys create laptop --tenant anna)
    """
    if not name.strip() or not tenant.strip():
        raise typer.BadParameter("a key needs a name and a tenant")
    made = asyncio.run(_create(_url(database_url), name.strip(), tenant.strip()))
    # The note goes elsewhere, so that the key alone can be captured.
    typer.echo(f"The key {name!r} of the tenant {tenant!r}; it is not shown again:", err=True)
    typer.echo(made)


@app.command("list")
def show(as_json: options.AsJson = False, database_url: options.DatabaseUrl = None) -> None:
    """List all keys by their public prefix.

    \b
    [bold]Examples[/bold]
      millrace keys list
      millrace keys list --json
    """
    keys = asyncio.run(_list(_url(database_url)))
    if as_json:
        typer.echo(json.dumps([_as_json(key) for key in keys], indent=2, ensure_ascii=False))
    elif keys:
        Console().print(_table(keys))
    else:
        typer.echo("There is no key yet. Make one: millrace keys create NAME")


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="The key's prefix, or the whole key.")],
    database_url: options.DatabaseUrl = None,
) -> None:
    """Revoke a key. Masters notice within a few seconds.

    \b
    [bold]Examples[/bold]
      millrace keys revoke mr-4fQz81Xw
    """
    if not asyncio.run(_revoke(_url(database_url), prefix_of(prefix))):
        raise Problem(f"no valid key begins with {prefix_of(prefix)!r}. See `millrace keys list`.")
    typer.echo(f"{prefix_of(prefix)} is revoked.")


def _url(database_url: str | None) -> str:
    return options.needed(database_url, "DATABASE_URL", "--database-url")


async def _create(url: str, name: str, tenant: str) -> str:
    made = new_key()
    async with reach.migrated(url, name="millrace keys") as engine, engine.begin() as connection:
        owner = await tenants.ensure_tenant(connection, tenant)
        await tenants.add_key(connection, owner, name, made.prefix, made.digest)
    return made.plain


async def _list(url: str) -> list[StoredKey]:
    async with reach.migrated(url, name="millrace keys") as engine, engine.connect() as connection:
        return await tenants.list_keys(connection)


async def _revoke(url: str, prefix: str) -> bool:
    async with reach.migrated(url, name="millrace keys") as engine, engine.begin() as connection:
        return await tenants.revoke_key(connection, prefix)


def _table(keys: list[StoredKey]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Prefix", no_wrap=True)
    for name in ("Name", "Tenant"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("Created", "Revoked"):
        table.add_column(name, no_wrap=True)
    for key in keys:
        cells = (key.prefix, key.name, key.tenant_name, _day(key.created_at), _day(key.revoked_at))
        table.add_row(*(Text(cell) for cell in cells), style="dim" if key.revoked_at else "")
    return table


def _day(time: datetime | None) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M") if time else ""


def _as_json(key: StoredKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant_name,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }
