"""An ingest while it runs: a bar on a terminal, a line for each document elsewhere."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from millrace.ingesting import Ingested
from millrace.problems import one_line
from millrace.show.documents import state_words
from millrace.show.numbers import plural


@contextmanager
def watching(console: Console, total: int, *, quiet: bool) -> Iterator[Callable[[Ingested], None]]:
    """What to call with every change."""
    if quiet:
        yield lambda _: None
    elif console.is_terminal:
        with _bar(console) as bar:
            task, held_up = bar.add_task("", total=total), _HeldUp(console)

            def show(done: Ingested) -> None:
                held_up(done)
                bar.update(task, completed=_ended(done), description=_description(done))

            yield show
    else:
        yield _Lines(console)


@contextmanager
def counting(console: Console) -> Iterator[Callable[[Mapping[str, int]], None]]:
    """What to call with the documents of a collection, counted by state."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with _bar(console) as bar:
        task = bar.add_task("", total=None)

        def show(counts: Mapping[str, int]) -> None:
            words = f"{counts['running']} running, {counts['waiting']} waiting"
            done = counts["ready"] + counts["failed"]
            bar.update(task, total=counts["total"], completed=done, description=words)

        yield show


def _bar(console: Console) -> Progress:
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
    )


def _ended(done: Ingested) -> int:
    return len(done.documents) - len(done.pending) + len(done.refused)


def _description(done: Ingested) -> str:
    """`3 embed, 12 waiting, 1 failed`."""
    stages = Counter(
        done.documents[key]["stage"] or done.documents[key]["state"] for key in done.pending
    )
    words = [f"{number} {stage}" for stage, number in sorted(stages.items())]
    words += [f"{len(done.failures)} failed"] if done.failures else []
    return ", ".join(words)


class _HeldUp:
    """A line when documents begin to wait for something: once for each reason."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[str] = set()

    def __call__(self, done: Ingested) -> None:
        """Say what is new."""
        for document in done.held_up:
            code = document["error"]["code"]
            if code not in self._said:
                self._said.add(code)
                line = _line(document["name"], "waiting", document)
                _say(self._console, f"{line}; it is tried again")


class _Lines:
    """A line when a document has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._held_up = _HeldUp(console)
        self._said: set[str] = set()
        self._refused = 0

    def __call__(self, done: Ingested) -> None:
        """Say what is new."""
        self._held_up(done)
        pending = set(done.pending)
        for key, document in done.documents.items():
            if key not in pending and key not in self._said:
                self._said.add(key)
                _say(self._console, _line(document["name"], state_words(document), document))
        for name, code, message in done.refused[self._refused :]:
            _say(self._console, f"refused  {one_line(name)}: {message} ({code})")
        self._refused = len(done.refused)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(name: str, state: str, document: dict[str, object]) -> str:
    error, progress = document["error"], document["progress"]
    if isinstance(error, dict):
        return f"{state}  {one_line(name)}: {error['message']} ({error['code']})"
    chunks = progress["chunks"] if isinstance(progress, dict) else 0
    return f"{state}  {one_line(name)}: {plural(chunks, 'chunk')}"
