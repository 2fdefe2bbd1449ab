"""`millrace migrate`."""

import asyncio

import typer

from db import migrate as migrations
from millrace import reach
from millrace.commands import options
from millrace.problems import Problem, place

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def migrate(database_url: options.DatabaseUrl = None) -> None:
    """Bring the database to this release's schema. Safe to run again, and from every replica.

    \b
    [bold]Examples[/bold]
      DATABASE_URL=postgresql://user:password@host/millrace millrace migrate
    """
    url = options.database(database_url)
    before, after = asyncio.run(_migrate(url))
    done = "was up to date" if before == after else f"migrated from {before or 'an empty schema'}"
    typer.echo(f"Postgres at {place(url)} is at revision {after} ({done}).")


async def _migrate(url: str) -> tuple[str | None, str]:
    async with reach.database(url, name="millrace migrate") as engine:
        before = await migrations.current(engine)
        try:
            return before, await migrations.upgrade(engine)
        except migrations.MigrationError as error:
            raise Problem(f"{error}.") from error
