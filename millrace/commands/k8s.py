"""`millrace k8s`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from millrace.k8s import check as checking
from millrace.k8s import compose, rendering, secrets, written
from millrace.k8s.problems import Unfit
from millrace.k8s.secret_values import Slot

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="Render manifests from models.yaml, make secrets, check both before they are applied.",
)

Overlay = Annotated[
    Path, typer.Option("--overlay", metavar="DIR", help="A folder of k8s/overlays.")
]


@app.command()
def render(
    overlay: Overlay,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if something would change.")
    ] = False,
) -> int:
    """Write the manifests of every model, from the overlay's cluster.yaml and models.yaml.

    Nothing is written where the models do not fit the memory of their pool.

    \b
    [bold]Examples[/bold]
      millrace k8s render --overlay k8s/overlays/k3s-gpu
      millrace k8s render --overlay k8s/overlays/k3s-gpu --check
    """
    try:
        wanted = rendering.render(rendering.read(overlay))
        found = written.changes(wanted, overlay / rendering.MODELS)
        if not check:
            written.write(wanted, found)
    except Unfit as error:
        return _complain(error.problems)
    for change in found:
        typer.echo(f"{change.kind:7}  {_short(change.path)}")
    if check and found:
        typer.echo(f"Run `millrace k8s render --overlay {overlay}`.", err=True)
        return 1
    if not found:
        typer.echo(f"{overlay} is as it should be: {len(wanted)} files.")
    return 0


@app.command("secrets")
def make_secrets(
    overlay: Annotated[
        Path | None, typer.Option("--overlay", metavar="DIR", help="A folder of k8s/overlays.")
    ] = None,
    compose_file: Annotated[
        Path | None, typer.Option("--compose", metavar="FILE", help="The .env of compose.yaml.")
    ] = None,
    rotate: Annotated[
        str | None, typer.Option(metavar="NAME", help="Give this one a new value.")
    ] = None,
) -> int:
    """Make the secrets that are not there yet. What is there stays as it is.

    They are random, and in files that git ignores and only you can read.

    \b
    [bold]Examples[/bold]
      millrace k8s secrets --overlay k8s/overlays/docker-desktop
      millrace k8s secrets --overlay k8s/overlays/k3s-gpu --rotate broker-worker
      millrace k8s secrets --compose .env
    """
    if (overlay is None) == (compose_file is None):
        raise typer.BadParameter("give either --overlay or --compose")
    try:
        if rotate is not None:
            secrets.check_name(rotate)
        if overlay is not None:
            prepared = _of_overlay(overlay, rotate)
        else:
            prepared = compose.write(compose_file or Path(), rotate)
    except Unfit as error:
        return _complain(error.problems)
    _say(prepared, rotate)
    return 0


@app.command()
def check(
    overlay: Overlay,
    kubernetes_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The server's, as kubectl says it.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="The context that kubectl uses.")
    ] = None,
    expect_context: Annotated[
        str | None, typer.Option(metavar="NAME", help="The context that is meant.")
    ] = None,
) -> int:
    """Check all that can be wrong before something is applied; say everything at once.

    Memory, names, missing secrets, manifests that do not fit models.yaml;
    of the cluster what you say of it. Exit code 1 where something is wrong.

    \b
    [bold]Examples[/bold]
      millrace k8s check --overlay k8s/overlays/k3s-gpu
      millrace k8s check --overlay k8s/overlays/docker-desktop \\
        --kubernetes-version 1.33.2 --expect-context docker-desktop \\
        --context "$(kubectl config current-context)"
    """
    server = checking.Server(kubernetes_version, context, expect_context)
    problems = checking.problems(overlay, server)
    if problems:
        return _complain(problems)
    typer.echo(f"{overlay} can be applied.")
    return 0


def _of_overlay(overlay: Path, rotate: str | None) -> secrets.Prepared:
    registry = rendering.read(overlay).registry
    folder = overlay / secrets.FOLDER
    prepared = secrets.prepare(folder, registry, rotate)
    secrets.write(folder, prepared)
    return prepared


def _say(prepared: secrets.Prepared, rotate: str | None) -> None:
    for path in prepared.stale:
        typer.echo(f"written  {_short(path)}")
    if not prepared.stale:
        typer.echo("All secrets are there.")
    if rotate is not None:
        _say_what_follows(rotate, prepared.foreign)


def _say_what_follows(rotated: str, foreign: Sequence[Slot]) -> None:
    for slot in foreign:
        if rotated in slot.secrets:
            typer.echo(f"{slot.variable} in {slot.file} is yours, and stays as it is.", err=True)
    typer.echo(secrets.after_rotation(rotated), err=True)


def _complain(problems: Sequence[str]) -> int:
    for line in problems:
        typer.echo(f"millrace: {line}", err=True)
    return 1


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
