"""`millrace schemas`."""

from pathlib import Path
from typing import Annotated

import typer

from millrace.problems import Problem, reason
from queue_schemas.export import export as write_schemas

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="The queue contract, so that a worker can be written in any language.",
)


@app.callback()
def schemas() -> None:
    """Keeps `export` a subcommand although it is the only one."""


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if missing.")],
) -> None:
    """Write JSON Schema of every message and an AsyncAPI document.

    \b
    [bold]Examples[/bold]
      millrace schemas export ./schemas
    """
    try:
        written = write_schemas(directory)
    except OSError as error:
        raise Problem(f"{error.filename or directory}: {reason(error)}.") from error
    for path in written:
        typer.echo(path)
