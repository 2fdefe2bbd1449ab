"""`millrace keys`."""

import asyncio
import json
import os
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from db import tenants
from db.tenants import StoredKey
from master.api.keys import digest_of, is_well_formed, matches, new_key, prefix_of
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


@app.command()
def ensure(
    name: Annotated[
        str, typer.Argument(help="What it is for, as `list` shows it.")
    ] = "installation",
    tenant: Annotated[str, typer.Option(help="Whose it is; made if new.")] = "default",
    database_url: options.DatabaseUrl = None,
) -> None:
    """Make the key in MILLRACE_API_KEY known, unless it is. For installations that made it first.

    \b
    [bold]Examples[/bold]
      millrace migrate && millrace keys ensure
      MILLRACE_API_KEY=mr-… millrace keys ensure "Open WebUI"
    """
    if not name.strip() or not tenant.strip():
        raise typer.BadParameter("a key needs a name and a tenant")
    plain = _given_key()
    added = asyncio.run(_ensure(_url(database_url), plain, name.strip(), tenant.strip()))
    typer.echo(f"{prefix_of(plain)} {'is made known' if added else 'is known'}.")


@app.command("list")
def show(as_json: options.AsJson = False, database_url: options.DatabaseUrl = None) -> None:
    """List all keys by their public prefix; below a key those that it made in the console.

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
    """Revoke a key, and with it those that it made in the console.

    Masters notice within a few seconds.

    \b
    [bold]Examples[/bold]
      millrace keys revoke mr-4fQz81Xw
    """
    made = asyncio.run(_revoke(_url(database_url), prefix_of(prefix)))
    if made is None:
        raise Problem(f"no valid key begins with {prefix_of(prefix)!r}. See `millrace keys list`.")
    with_it = f", and with it {', '.join(made)}, made with it in the console" if made else ""
    typer.echo(f"{prefix_of(prefix)} is revoked{with_it}.")


def _url(database_url: str | None) -> str:
    return options.database(database_url)


async def _create(url: str, name: str, tenant: str) -> str:
    made = new_key()
    async with reach.migrated(url, name="millrace keys") as engine, engine.begin() as connection:
        owner = await tenants.ensure_tenant(connection, tenant)
        await tenants.add_key(connection, owner, name, made.prefix, made.digest)
    return made.plain


def _given_key() -> str:
    plain = os.environ.get("MILLRACE_API_KEY", "").strip()
    if not plain:
        raise Problem("MILLRACE_API_KEY is not set. It holds the key that is to be made known.")
    if not is_well_formed(plain):
        raise Problem(
            "MILLRACE_API_KEY holds no key of ours: mr- and 40 letters and digits. "
            "`millrace k8s secrets` makes one, and so does `millrace keys create`."
        )
    return plain


async def _ensure(url: str, plain: str, name: str, tenant: str) -> bool:
    """Store this key; False: it was there. Raises Problem for one that may not be used any more."""
    prefix = prefix_of(plain)
    async with reach.migrated(url, name="millrace keys") as engine, engine.begin() as connection:
        found = await tenants.find_key(connection, prefix)
        if found is None:
            owner = await tenants.ensure_tenant(connection, tenant)
            await tenants.add_key(connection, owner, name, prefix, digest_of(plain))
            return True
    if not matches(plain, found.digest):
        raise Problem(f"there is another key that begins with {prefix}. Make a new one.")
    if found.revoked_at is not None:
        raise Problem(
            f"{prefix} was revoked on {_day(found.revoked_at)}. "
            "Make a new one: `millrace k8s secrets --rotate api-key`."
        )
    return False


async def _list(url: str) -> list[StoredKey]:
    async with reach.migrated(url, name="millrace keys") as engine, engine.connect() as connection:
        return await tenants.list_keys(connection)


async def _revoke(url: str, prefix: str) -> list[str] | None:
    """Prefixes of the valid keys that it made and that end with it; None: it was not valid."""
    async with reach.migrated(url, name="millrace keys") as engine, engine.begin() as connection:
        valid = [key for key in await tenants.list_keys(connection) if not key.revoked_at]
        revoked = await tenants.revoke_key(connection, prefix)
    return [key.prefix for key in valid if key.made_with == prefix] if revoked else None


def _table(keys: list[StoredKey]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Prefix", no_wrap=True)
    for name in ("Name", "Tenant"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("Created", "Revoked"):
        table.add_column(name, no_wrap=True)
    for key in keys:
        prefix = f"└ {key.prefix}" if key.made_with else key.prefix
        cells = (prefix, key.name, key.tenant_name, _day(key.created_at), _day(key.revoked_at))
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
        "made_with": key.made_with,
    }
