"""`millrace chaos`."""

import asyncio
import difflib
import json
import logging
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millrace import event_loop
from millrace.chaos import report
from millrace.chaos.faults import KINDS
from millrace.chaos.machine import Unavailable
from millrace.chaos.outcome import Options, Outcome
from millrace.chaos.run import Show
from millrace.chaos.run import run as run_chaos
from millrace.commands import options
from millrace.problems import Problem

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_LINE_SECONDS = 10.0


@app.command()
def chaos(  # noqa: PLR0913, PLR0917 - one parameter for each option
    seconds: Annotated[float, typer.Option(min=5, max=86_400, help="How long to strike.")] = 60.0,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31, help="Same seed, same faults. [random]")
    ] = None,
    masters: Annotated[int, typer.Option(min=1, max=8, help="Master processes.")] = 2,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Worker processes.")] = 4,
    clients: Annotated[int, typer.Option(min=1, max=500, help="Clients at a time.")] = 8,
    faults: Annotated[
        str | None, typer.Option(metavar="KIND,KIND", help="Only these faults. [all]")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the logs, also when all went well.")
    ] = False,
    as_json: options.AsJson = False,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write a Markdown report too.")
    ] = None,
) -> int:
    """Break a private installation on purpose, and prove that its promises hold.

    Starts its own RabbitMQ, Postgres, masters, workers and engine on this machine, and touches
    nothing else. The exit code is 1 when a promise was broken; the seed replays the run.

    \b
    [bold]Examples[/bold]
      millrace chaos
      millrace chaos --seconds 300 --seed 7 --report chaos.md
      millrace chaos --faults worker-kill,broker-kill --clients 20
    """
    # Processes that die and connections that break are what this is about.
    logging.disable(logging.CRITICAL)
    chosen = Options(
        seed=secrets.randbelow(2**31) if seed is None else seed,
        seconds=seconds,
        masters=masters,
        workers=workers,
        clients=clients,
        kinds=_kinds(faults),
    )
    if page is not None and not page.parent.is_dir():
        raise Problem(f"--report: there is no folder {page.parent}")
    folder = Path(tempfile.mkdtemp(prefix="millrace-chaos-"))
    outcome = _carry_out(chosen, folder, Console(stderr=True))
    if as_json:
        typer.echo(json.dumps(report.as_json(outcome), indent=2))
        for line in report.violations(outcome):
            typer.echo(line, err=True)
    else:
        Console().print(report.for_people(outcome))
    if page is not None:
        page.write_text(report.as_markdown(outcome), encoding="utf-8")
    if keep or outcome.broken:
        (folder / "records.json").write_text(report.records(outcome), encoding="utf-8")
        Console(stderr=True).print(f"Logs and records: {folder}", highlight=False)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(outcome.broken > 0)


def _kinds(named: str | None) -> tuple[str, ...]:
    if named is None:
        return tuple(KINDS)
    kinds = tuple(dict.fromkeys(kind.strip() for kind in named.split(",") if kind.strip()))
    for kind in kinds:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise Problem(f"--faults: there is no {kind!r}; {hint}one of {', '.join(KINDS)}")
    if not kinds:
        raise Problem(f"--faults needs at least one of {', '.join(KINDS)}")
    return kinds


def _carry_out(chosen: Options, folder: Path, console: Console) -> Outcome:
    console.print(f"Seed {chosen.seed}. Starting servers, masters and workers…", highlight=False)
    try:
        with console.status("starting") as status:
            shown_at = -_LINE_SECONDS

            def show(elapsed: float, outcome: Outcome) -> None:
                nonlocal shown_at
                line = _progress(elapsed, outcome)
                status.update(line)
                if not console.is_terminal and elapsed - shown_at >= _LINE_SECONDS:
                    shown_at = elapsed
                    console.print(line, highlight=False)

            return asyncio.run(_until_stopped(chosen, folder, show, console))
    except Unavailable as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Problem(str(error)) from error


async def _until_stopped(chosen: Options, folder: Path, show: Show, console: Console) -> Outcome:
    """The first Ctrl-C ends the faults and has the run judged, the second one ends it at once."""
    stop, _ = event_loop.stop_on_signals()

    async def say() -> None:
        await stop.wait()
        console.print("Stopping: the last answers are awaited, then judged. Ctrl-C again kills.")

    saying = asyncio.create_task(say())
    try:
        return await run_chaos(chosen, folder, stop, show)
    finally:
        saying.cancel()


def _progress(elapsed: float, outcome: Outcome) -> str:
    return (
        f"{elapsed:.0f} s of {outcome.options.seconds:g}, {len(outcome.struck)} faults, "
        f"{len(outcome.evidence.visits)} requests, {outcome.broken} violations"
    )
