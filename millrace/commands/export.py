"""`millrace export`."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import typer

from db import training
from db.training import RatedRequest
from master.learning.examples import LEAST_SCORE, Format, examples, why_not
from millrace import duration, reach, redaction
from millrace.commands import options
from millrace.problems import Problem
from millrace.redaction import Redact
from millrace.show.numbers import plural

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_EVERY = 500
"""Requests between two words on how far it is."""


@dataclass(frozen=True)
class _Wanted:
    format: Format
    tenant: str | None
    since_seconds: float
    least_score: float
    redact: Sequence[Redact]

    def lines(self, group: Sequence[RatedRequest]) -> Iterator[str]:
        """The examples of requests with the same question, redacted."""
        for example in examples(group, self.format, self.least_score):
            kept = redaction.redacted(example, self.redact)
            yield json.dumps(kept, ensure_ascii=False) + "\n"


@app.callback(invoke_without_command=True)
def export(
    context: typer.Context,
    format_: Annotated[Format, typer.Option("--format", help="What a line is.")] = Format.SFT,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant.")] = None,
    since: Annotated[str, typer.Option(metavar="SPAN", help="Asked in the last 12h, 7d.")] = "365d",
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help=f"Of a good answer; none: {LEAST_SCORE:g}, for jsonl all of them."
        ),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="HOW", help="basic, or module:function; may be said again."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; none: standard output.")
    ] = None,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Export rated chats, to train a model with them elsewhere.

    Only of tenants who let that happen (`consent`), and without chats that clients kept back. A
    file appears when it is whole, or not at all. More: docs/training.md

    \b
    [bold]Examples[/bold]
      millrace export consent on --tenant acme
      millrace export --format sft --redact basic --out chats.jsonl
      millrace export --format dpo --redact mine:hide --out pairs.jsonl
    """
    if context.invoked_subcommand is not None:
        return
    url = options.database(database_url)
    least = min_score if min_score is not None else 0.0 if format_ is Format.JSONL else LEAST_SCORE
    wanted = _Wanted(format_, tenant, duration.seconds(since), least, _hooks(redact))
    with _whole(out) as file:
        summary = asyncio.run(_export(url, wanted, file))
    typer.echo(summary, err=True)


@app.command()
def consent(
    state: Annotated[str | None, typer.Argument(metavar="on|off", help="None: show.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Whose chats.")] = None,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Say whether a tenant's rated chats may be exported, or show it for all.

    \b
    [bold]Examples[/bold]
      millrace export consent
      millrace export consent on --tenant acme
    """
    url = options.database(database_url)
    if state is None:
        for name, allowed in asyncio.run(_consents(url)):
            typer.echo(f"{'on ' if allowed else 'off'} {name}")
        return
    if state not in {"on", "off"} or not tenant:
        raise typer.BadParameter("say on or off, and whose: --tenant NAME")
    if not asyncio.run(_consent(url, tenant, allowed=state == "on")):
        raise Problem(f"there is no tenant {tenant!r}. See `millrace export consent`.")
    may = "may" if state == "on" else "may not"
    typer.echo(f"Rated chats of {tenant} {may} be exported.")


async def _consents(url: str) -> list[tuple[str, bool]]:
    async with reach.migrated(url, name="millrace export") as engine, engine.connect() as found:
        return await training.consents(found)


async def _consent(url: str, tenant: str, *, allowed: bool) -> bool:
    async with reach.migrated(url, name="millrace export") as engine, engine.begin() as connection:
        return await training.set_consent(connection, tenant, allowed)


async def _export(url: str, wanted: _Wanted, file: IO[str]) -> str:
    """Write every example; what was done, for a person."""
    lines, left_out, read = 0, Counter[str](), 0
    async with reach.migrated(url, name="millrace export") as engine, engine.connect() as found:
        rated = training.rated(found, wanted.tenant, wanted.since_seconds)
        async for group in _by_question(rated):
            for request in group:
                read += 1
                if read % _EVERY == 0:
                    typer.echo(f"{plural(read, 'rated request')} read …", err=True)
                if wanted.format is not Format.JSONL and (reason := why_not(request)):
                    left_out[reason] += 1
            for line in wanted.lines(group):
                file.write(line)
                lines += 1
    without = "".join(f"; {count:,} left out: {why}" for why, count in sorted(left_out.items()))
    return f"{plural(lines, 'line')} of {plural(read, 'rated request')}{without}."


async def _by_question(rated: AsyncIterator[RatedRequest]) -> AsyncIterator[list[RatedRequest]]:
    """Requests that asked the same, which come one after the other."""
    group: list[RatedRequest] = []
    async for request in rated:
        if group and group[0].same != request.same:
            yield group
            group = []
        group.append(request)
    if group:
        yield group


@contextmanager
def _whole(out: Path | None) -> Iterator[IO[str]]:
    """A file that takes its place when everything is written; only its owner can read it."""
    if out is not None and not out.parent.is_dir():
        raise Problem(f"there is no folder {out.parent}.")
    folder = None if out is None else out.parent
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8", dir=folder, delete=False) as file:
        written = Path(file.name)
        try:
            yield file
            file.flush()
            if out is not None:
                written.replace(out)
            else:
                file.seek(0)
                shutil.copyfileobj(file, sys.stdout)
        finally:
            written.unlink(missing_ok=True)


def _hooks(names: list[str] | None) -> tuple[Redact, ...]:
    return tuple(redaction.load(name) for name in names or ())
