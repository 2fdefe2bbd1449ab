"""`millrace logs`."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millrace import home
from millrace.commands import options
from millrace.log_files import Tail, in_folder, lines
from millrace.log_lines import LogLine, Search, found, matching
from millrace.logs import Level, LogSettings
from millrace.problems import Problem
from millrace.show.log_lines import pretty
from millrace.show.numbers import plural

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_PAUSE_SECONDS = 0.25
_ELSEWHERE = (
    "Pipe them in: kubectl logs -n millrace -l app.kubernetes.io/part-of=millrace "
    "--all-containers --prefix --tail=-1 | millrace logs ID -  (with Compose: "
    "docker compose logs --no-color | millrace logs ID -)."
)


@app.command()
def logs(
    identity: Annotated[
        str,
        typer.Argument(metavar="ID", help="Of a request or a subtask; its beginning will do."),
    ],
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE…", help="Where to look; - reads standard input."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")
    ] = False,
    level: Annotated[Level, typer.Option(help="From which importance on.")] = Level.DEBUG,
    as_json: options.AsJson = False,
) -> None:
    """Show what all processes logged of one request, in the order of time.

    Without files it reads those of `millrace up`, or of MILLRACE_LOG_FOLDER.

    \b
    [bold]Examples[/bold]
      millrace logs 3f2a91c4
      millrace logs 3f2a91c4 --follow --level info
      kubectl logs -l app.kubernetes.io/part-of=millrace --prefix --tail=-1 | millrace logs 3f2a -
      docker compose logs --no-color | millrace logs 3f2a91c4 -
    """
    search = Search.of(identity)
    show = _Shown(search, level, as_json=as_json)
    if files == ["-"]:
        _from_stdin(search, show, follow=follow)
    elif files and "-" in files:
        raise typer.BadParameter("- stands alone")
    else:
        _from_files(search, show, [Path(file) for file in files or ()], follow=follow)


class _Shown:
    """Prints lines that are important enough."""

    def __init__(self, search: Search, least: Level, *, as_json: bool) -> None:
        self._search = search
        self._least = least.number
        self._json = as_json
        self._console = Console(soft_wrap=True)

    def all(self, wanted: Iterable[LogLine]) -> int:
        """Print these; returns how many there are, with those that are not important enough."""
        number = 0
        for number, line in enumerate(wanted, start=1):  # noqa: B007  it is used after the loop
            self._search.check()
            if line.level >= self._least:
                self._print(line)
        return number

    def _print(self, line: LogLine) -> None:
        if self._json:
            typer.echo(json.dumps(line.fields, ensure_ascii=False))
        else:
            for each in pretty(line):
                self._console.print(each, highlight=False)


def _from_stdin(search: Search, show: _Shown, *, follow: bool) -> None:
    if follow:
        show.all(matching(sys.stdin, search))
        return
    texts = list(sys.stdin)
    if not show.all(found(lambda: texts, search)):
        raise _nothing(search, f"the {plural(len(texts), 'line')} of standard input")


def _from_files(search: Search, show: _Shown, named: Sequence[Path], *, follow: bool) -> None:
    folder = LogSettings().folder or home.logs()
    paths = list(named) or in_folder(folder)
    if not paths and not follow:
        raise Problem(f"there are no logs in {folder}, where `millrace up` writes. {_ELSEWHERE}")
    then = {path: path.stat() for path in paths}
    tail = Tail(then)
    number = show.all(found(lambda: chain(*(lines(p, s.st_size) for p, s in then.items())), search))
    if not number and not follow:
        raise _nothing(search, ", ".join(str(path) for path in paths[:3]))
    while follow:
        time.sleep(_PAUSE_SECONDS)
        for each in tail.lines(named or in_folder(folder)):
            show.all(sorted(matching(each, search), key=lambda line: line.at))


def _nothing(search: Search, where: str) -> Problem:
    return Problem(
        f"no line names {search.written} in {where}. Lines must be JSON (MILLRACE_LOG_FORMAT); "
        "of a subtask's way there are lines from MILLRACE_LOG_LEVEL=debug on."
    )
