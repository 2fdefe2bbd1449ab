"""`millrace n8n`."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bus import rabbitmq
from db import inbox, workflow_role
from db.inbox import Report
from db.workflow_role import WORKFLOW_ROLE
from millrace import n8n_files, reach
from millrace.commands import options
from millrace.n8n_files import Credential, Workflow
from millrace.problems import Problem, one_line, reaching
from queue_schemas import topology

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="Give n8n its workflows and credentials; read the reports that it writes.",
)

_COMMAND_SECONDS = 300
_MAKE_USER = f"CREATE USER n8n IN ROLE {WORKFLOW_ROLE} PASSWORD '…';"

N8nCommand = Annotated[
    str, typer.Option("--n8n-command", metavar="COMMAND", help="How n8n is called here.")
]
Folder = Annotated[
    Path, typer.Option("--workflows", metavar="DIR", help="The workflows, as JSON files.")
]


@app.command()
def provision(
    n8n_command: N8nCommand = "n8n",
    workflows: Folder = n8n_files.WORKFLOWS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; touch nothing.")
    ] = False,
    print_to: Annotated[
        Path | None,
        typer.Option(
            "--print", metavar="DIR", help="For a container: write files there, print the rest."
        ),
    ] = None,
) -> None:
    """Import credentials and workflows into n8n and publish them. Doing so again changes nothing.

    It needs n8n's own variables as the server has them (N8N_ENCRYPTION_KEY, DB_*), and these:

    \b
      MILLRACE_N8N_DATABASE_URL   a user in the role millrace_n8n
      RABBITMQ_URL                or MILLRACE_N8N_RABBITMQ_URL, where n8n has another way
      MILLRACE_N8N_WEBHOOK_KEY    what callers of the webhook must show
      MILLRACE_URL                where n8n finds the master
      MILLRACE_API_KEY            a key for it
      MILLRACE_OPENWEBUI_URL, MILLRACE_OPENWEBUI_API_KEY, MILLRACE_N8N_ALERT_URL   if you like

    \b
    [bold]Examples[/bold]
      millrace n8n provision --dry-run
      millrace n8n provision --n8n-command "npx n8n"
      millrace n8n provision --print ./n8n > n8n.env
    """
    made = n8n_files.credentials(os.environ)
    flows = n8n_files.workflows(workflows, n8n_files.settings(os.environ))
    if dry_run:
        _say_what_would_be_done(n8n_command, made, flows)
        return
    asyncio.run(_prepare(os.environ[n8n_files.DATABASE], n8n_files.broker_url(os.environ)))
    if print_to is not None:
        _print(print_to, made, flows)
        return
    with tempfile.TemporaryDirectory(prefix="millrace-n8n-") as name:  # nobody else may enter
        folder = Path(name)
        _write_workflows(folder / "workflows", flows)
        secrets = folder / "credentials.json"
        secrets.touch(mode=0o600)
        secrets.write_text(json.dumps(made), "utf-8")
        found = set(_run(n8n_files.published(n8n_command)).split())
        for flow in flows:
            if flow["id"] in found:
                _run(n8n_files.unpublish(n8n_command, flow["id"]))
        for command in n8n_files.commands(n8n_command, flows, str(secrets), f"{folder}/workflows"):
            _run(command)
    names = ", ".join(flow["name"].removeprefix("Millrace: ") for flow in flows)
    typer.echo(f"n8n has {len(made)} credentials and publishes: {names}.")
    typer.echo("Restart n8n if it runs: it reads its workflows when it starts.", err=True)


@app.command()
def report(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant's.")] = None,
    as_json: options.AsJson = False,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Print the latest weekly report of each tenant, as Markdown with a mermaid mind map.

    \b
    [bold]Examples[/bold]
      millrace n8n report > week.md
      millrace n8n report --tenant acme --json
    """
    url = options.database(database_url)
    found = asyncio.run(_reports(url, tenant))
    if as_json:
        rows = [asdict(each) for each in found]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
    elif found:
        typer.echo("\n".join(each.text for each in found))
    else:
        typer.echo("There is no report yet. n8n writes one every Monday.")


async def _reports(url: str, tenant: str | None) -> list[Report]:
    async with reach.migrated(url, name="millrace n8n") as engine, engine.connect() as connection:
        return await inbox.latest_reports(connection, tenant)


async def _prepare(database_url: str, broker_url: str) -> None:
    """See that n8n may do in the database what it must and no more; declare its queues."""
    async with reach.database(database_url, name="millrace n8n") as engine:
        with reaching("Postgres", database_url, "Run `millrace migrate` first."):
            async with engine.connect() as connection:
                found = await workflow_role.standing(connection)
    if not found.member:
        raise Problem(
            f"the user {found.user} is not in the role {WORKFLOW_ROLE}. Make one: {_MAKE_USER}"
        )
    if found.mighty:
        raise Problem(
            f"the user {found.user} may do more than {WORKFLOW_ROLE}. Make one: {_MAKE_USER}"
        )
    bus = await rabbitmq.connect(broker_url, name="millrace n8n")
    try:
        await bus.declare([*topology.SHARED, topology.N8N])
    finally:
        await bus.aclose()


def _write_workflows(folder: Path, flows: list[Workflow]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for flow in flows:
        text = json.dumps(flow, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{flow['id']}.json").write_text(text, "utf-8")


def _run(command: str) -> str:
    """Run a command of n8n; what it said. Raises Problem with what it said last."""
    arguments = shlex.split(command, posix=sys.platform != "win32")
    said = f"`{' '.join(arguments[:-1])}`"
    try:
        done = subprocess.run(  # noqa: S603 - what the operator calls n8n is what is to be run
            arguments, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise Problem(
            f"there is no command {arguments[0]!r}. Give --n8n-command, or use --print."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Problem(f"{said} did not end within {_COMMAND_SECONDS} s.") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = one_line(lines[-1]) if lines else f"exit code {done.returncode}"
        raise Problem(f"{said} failed: {last.rstrip('.')}.")
    return done.stdout


def _print(folder: Path, made: list[Credential], flows: list[Workflow]) -> None:
    """Files without any secret into the folder; what holds the secrets to standard output."""
    _write_workflows(folder / "workflows", flows)
    blank = json.dumps([{**each, "data": {}} for each in made], indent=2)
    (folder / "credentials.json").write_text(blank + "\n", "utf-8")
    typer.echo(f"CREDENTIALS_OVERWRITE_DATA={n8n_files.overwrite(made)}")
    typer.echo(f"Mount {folder} into the container as /millrace and run there:", err=True)
    for command in n8n_files.commands(
        "n8n", flows, "/millrace/credentials.json", "/millrace/workflows"
    ):
        typer.echo(f"  {command}", err=True)
    typer.echo("What was published before must first be unpublished, each by its --id:", err=True)
    typer.echo(f"  {n8n_files.unpublish('n8n', n8n_files.ERROR_WORKFLOW)}", err=True)
    typer.echo("Then start it with the line on standard output, which holds secrets.", err=True)


def _say_what_would_be_done(
    n8n_command: str, made: list[Credential], flows: list[Workflow]
) -> None:
    for each in made:
        names = ", ".join(each["data"]) or "nothing: it stays blank"
        typer.echo(f"credential {each['name']} ({each['type']}): {names}")
    for flow in flows:
        values = {a["name"]: a["value"] for a in n8n_files.assignments(flow)}
        said = ", ".join(f"{name}={value!r}" for name, value in values.items())
        typer.echo(f"workflow {flow['id']} ({flow['name']}){': ' + said if said else ''}")
    for command in n8n_files.commands(n8n_command, flows, "CREDENTIALS", "WORKFLOWS"):
        typer.echo(f"run {command}")
