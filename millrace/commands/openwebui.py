"""`millrace openwebui`."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from db import openwebui as seen
from db.tenancy import as_tenant
from master.learning.pull import NoTenant, owner
from master.learning.pull import pull as pull_once
from master.learning.taking import Round
from master.openwebui import OpenWebui, OpenWebuiError
from millrace import home, logs, openwebui, reach
from millrace.client import is_loopback
from millrace.commands import options
from millrace.openwebui import Admin, Connected, Standing, Wish
from millrace.problems import Problem, place
from millrace.show.openwebui import Taken, connected, round_of, standing

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="Attach Open WebUI, and take its users' ratings over.",
)

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="MILLRACE_OPENWEBUI_URL", metavar="URL", help="Open WebUI's."),
]
AdminKey = Annotated[
    str | None,
    typer.Option(
        "--admin-key",
        envvar="MILLRACE_OPENWEBUI_API_KEY",
        metavar="KEY",
        help="API key or token of one of its administrators.",
    ),
]
MasterUrl = Annotated[
    str,
    typer.Option(
        "--master-url",
        envvar="MILLRACE_URL",
        metavar="URL",
        help="The master, as Open WebUI reaches it.",
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        envvar="MILLRACE_OPENWEBUI_TENANT",
        metavar="NAME",
        help="Whose chats are rated there; none: of the only tenant.",
    ),
]


@app.command()
def connect(  # noqa: PLR0913, PLR0917  every option of the command line is a parameter
    url: Url = None,
    admin_key: AdminKey = None,
    email: Annotated[
        str | None, typer.Option(help="Of an administrator, instead of a key.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_OPENWEBUI_PASSWORD", help="With --email; else it is asked."),
    ] = None,
    master_url: MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
    task_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="For background prompts, whatever is set.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Make or mend the connection in Open WebUI: headers, model of background prompts, access.

    What is set already stays; a second run changes nothing. No restart is needed.

    \b
    [bold]Examples[/bold]
      millrace openwebui connect --url http://127.0.0.1:8080 --email admin@example.org
      millrace openwebui connect --url http://127.0.0.1:8080 --admin-key sk-… --dry-run
      millrace openwebui connect --master-url http://host.docker.internal:8000 …
    """
    admin = _Login(
        options.needed(url, "MILLRACE_OPENWEBUI_URL", "--url"), admin_key, email, password
    )
    key = api_key or (home.kept_key() if is_loopback(master_url) else None)
    wish = Wish(_address(master_url), key, task_model)
    found = asyncio.run(_connect(admin, wish, dry_run=dry_run))
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, **asdict(found)}, indent=2, ensure_ascii=False))
        return
    Console().print(connected(found, dry_run=dry_run))
    if found.api_key not in {None, admin_key}:  # who gave it knows it
        typer.echo(f"MILLRACE_OPENWEBUI_URL={admin.url}")
        typer.echo(f"MILLRACE_OPENWEBUI_API_KEY={found.api_key}")


@app.command()
def status(
    url: Url = None,
    admin_key: AdminKey = None,
    master_url: MasterUrl = options.DEFAULT_MASTER_URL,
    tenant: Tenant = None,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Show how Open WebUI is set up, and what was taken over from it.

    \b
    [bold]Examples[/bold]
      millrace openwebui status
    """
    admin = _Login(*_reading(url, admin_key))
    found = asyncio.run(_standing(admin, _address(master_url)))
    taken = asyncio.run(_taken(database_url, admin.url, tenant)) if database_url else None
    if as_json:
        ratings = None if taken is None else asdict(taken)
        body = {"open_webui": asdict(found), "ratings": ratings}
        typer.echo(json.dumps(body, indent=2, ensure_ascii=False, default=str))
    else:
        Console().print(standing(found, taken))


@app.command()
def pull(
    context: typer.Context,
    url: Url = None,
    admin_key: AdminKey = None,
    tenant: Tenant = None,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Take over now what the masters take over every MILLRACE_OPENWEBUI_SECONDS.

    \b
    [bold]Examples[/bold]
      millrace openwebui pull
      millrace openwebui pull --tenant acme --json
    """
    debug = options.debug(context)
    logs.configure("openwebui", debug=debug, quiet=not debug)
    where, key = _reading(url, admin_key)
    database = options.database(database_url)
    found = asyncio.run(_pull(database, where, key, tenant))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        Console().print(round_of(found))


@dataclass(frozen=True)
class _Login:
    """Where Open WebUI is, and who asks."""

    url: str
    key: str | None
    email: str | None = None
    password: str | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Admin]:
        """Open WebUI with the rights of an administrator. Raises `Problem`."""
        async with Admin(self.url, None if self.email else self.key) as admin:
            if self.email:
                password = self.password or typer.prompt("Password", hide_input=True, err=True)
                await admin.sign_in(self.email, password)
            elif not self.key:
                raise Problem("say who you are: --admin-key KEY, or --email ADDRESS.")
            yield admin


def _reading(url: str | None, key: str | None) -> tuple[str, str]:
    return (
        options.needed(url, "MILLRACE_OPENWEBUI_URL", "--url"),
        options.needed(key, "MILLRACE_OPENWEBUI_API_KEY", "--admin-key"),
    )


def _address(master_url: str) -> str:
    """Of the master's API."""
    return master_url.rstrip("/").removesuffix("/v1") + "/v1"


async def _connect(login: _Login, wish: Wish, *, dry_run: bool) -> Connected:
    async with login.opened() as admin:
        token = None if login.email else login.key
        return await openwebui.connect(admin, wish, token=token, dry_run=dry_run)


async def _standing(login: _Login, master: str) -> Standing:
    async with login.opened() as admin:
        return await openwebui.standing(admin, master)


async def _taken(database_url: str, url: str, tenant: str | None) -> Taken:
    async with reach.migrated(database_url, name="millrace openwebui") as engine:
        owned = await _owner(engine, tenant)
        async with as_tenant(engine, owned) as connection:
            source = await seen.source(connection, owned, url.rstrip("/"))
            counts = await seen.counted(connection, owned, url.rstrip("/"))
    return Taken(source.pulled_at, source.error, dict(counts))


async def _pull(database_url: str, url: str, key: str, tenant: str | None) -> Round:
    async with reach.migrated(database_url, name="millrace openwebui") as engine:
        owned = await _owner(engine, tenant)
        try:
            async with OpenWebui(url, key) as client:
                found = await pull_once(engine, client, owned, now=time.time(), wait=True)
        except OpenWebuiError as error:
            raise Problem(f"Open WebUI at {place(url)}: {error}.") from error
    return found or Round()


async def _owner(engine: AsyncEngine, tenant: str | None) -> UUID:
    try:
        return await owner(engine, tenant)
    except NoTenant as error:
        raise Problem(f"{error} (--tenant or MILLRACE_OPENWEBUI_TENANT).") from error
