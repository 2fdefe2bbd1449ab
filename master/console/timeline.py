"""When the subtasks of a request waited and ran, attempt by attempt, as bars on one axis.

Pure: from rows to places in pixels, which a template draws as SVG.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from master.console.dag import shortened
from queue_schemas.states import SUBTASK_TERMINAL, SubtaskState

WIDTH = 720
LANE_HEIGHT = 22
_LEAST_WIDTH = 3.0
_TICKS = 6
_TITLE_CELLS = 26
_STEPS = (1, 2, 5)


class Phase(StrEnum):
    """What a subtask did for a while."""

    BLOCKED = "blocked"
    """It waited for what it builds on."""
    WAITING = "waiting"
    """In the database, for room on its queue, or for its next try."""
    QUEUED = "queued"
    """On its queue, for a worker."""
    READING = "reading"
    """A worker had it, and no word had come."""
    WRITING = "writing"
    """Its text came."""
    RUNNING = "running"
    """A worker has it; whether words came is not known here."""
    FAILED = "failed"
    """An attempt that failed, with all its time at the engine."""
    STOPPED = "stopped"
    """An attempt that was told to stop, or whose result came too late."""


WORDS: Mapping[Phase, str] = {
    Phase.BLOCKED: "waits for other steps",
    Phase.WAITING: "waits for room on its queue, or for its next try",
    Phase.QUEUED: "on its queue",
    Phase.READING: "until the first token",
    Phase.WRITING: "writes",
    Phase.RUNNING: "runs",
    Phase.FAILED: "failed",
    Phase.STOPPED: "stopped, or too late",
}


@dataclass(frozen=True)
class Span:
    """A phase with its times, in seconds after the request came."""

    phase: Phase
    start: float
    end: float
    attempt: int
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A span with its place."""

    span: Span
    x: float
    width: float
    words: str


@dataclass(frozen=True)
class Lane:
    """One subtask."""

    step: str
    title: str
    label: str
    """The title, cut to fit."""
    y: int
    bars: Sequence[Bar]
    words: str


@dataclass(frozen=True)
class Tick:
    """A mark on the axis."""

    x: float
    label: str


@dataclass(frozen=True)
class Timeline:
    """The whole picture."""

    seconds: float
    width: int
    height: int
    lanes: Sequence[Lane]
    ticks: Sequence[Tick]
    phases: Mapping[Phase, str]
    """Those that are in the picture, in words."""
    lane_height: int = LANE_HEIGHT


Row = Mapping[str, Any]


def draw(
    began: datetime,
    now: datetime,
    rows: Sequence[Row],
    executions: Sequence[Row],
    titles: Mapping[str, str],
) -> Timeline:
    """Of subtask rows and of the ledger's lines. `now` is by the clock of their times."""
    ended: dict[Any, list[Row]] = defaultdict(list)
    for line in executions:
        ended[line["subtask_id"]].append(line)
    spans = [list(spans_of(began, now, row, ended[row["id"]])) for row in rows]
    seconds = max((span.end for each in spans for span in each), default=0.0) or 1.0
    lanes = [
        _lane(number, row, titles.get(row["step"]) or row["step"], each, seconds)
        for number, (row, each) in enumerate(zip(rows, spans, strict=True))
    ]
    ticks = [Tick(at / seconds * WIDTH, _label(at)) for at in ticks_of(seconds)]
    seen = {span.phase for each in spans for span in each}
    phases = {phase: words for phase, words in WORDS.items() if phase in seen}
    return Timeline(seconds, WIDTH, len(lanes) * LANE_HEIGHT, lanes, ticks, phases)


def spans_of(began: datetime, now: datetime, row: Row, executions: Sequence[Row]) -> Iterator[Span]:
    """What one subtask did, in order and without overlaps. Only the last attempt has all times."""
    at = 0.0
    current = [line for line in executions if _is_current(line, row)]
    for span in _earlier(began, executions, current):
        if span.start > at:
            yield Span(_before(row, at), at, span.start, span.attempt)
        yield Span(span.phase, max(at, span.start), max(at, span.end), span.attempt, span.note)
        at = max(at, span.end)
    for phase, time in _moves(row, executions, now):
        end = _since(began, time)
        if end > at:
            yield Span(phase, at, end, row["attempt"])
            at = end


def _is_current(line: Row, row: Row) -> bool:
    return bool(line["execution"] == row["execution"] and line["attempt"] == row["attempt"])


def _earlier(began: datetime, executions: Sequence[Row], current: Sequence[Row]) -> Iterator[Span]:
    """Executions that came to nothing; the ledger has their ends, and what they took."""
    for line in sorted(executions, key=lambda line: line["finished_at"]):
        if line in current:
            continue
        end = _since(began, line["finished_at"])
        stopped = line["outcome"] in {"completed", "cancelled"}
        phase = Phase.STOPPED if stopped else Phase.FAILED
        start = max(0.0, end - max(0.0, line["engine_seconds"]))
        yield Span(phase, start, end, line["attempt"], _outcome(line))


def _outcome(line: Row) -> str:
    return "came too late" if line["outcome"] == "completed" else str(line["outcome"])


def _before(row: Row, at: float) -> Phase:
    return Phase.BLOCKED if at == 0 and row["depends_on"] else Phase.WAITING


def _moves(row: Row, lines: Sequence[Row], now: datetime) -> Iterator[tuple[Phase, datetime]]:
    """Each phase of the last attempt with its end, which is now while it lasts."""
    ended = row["finished_at"]
    if row["ready_at"] is None:
        yield Phase.BLOCKED, ended or now
        return
    yield _unready(row, lines), min(row["ready_at"], ended or now)  # a pause may still last
    # A worker may begin before the mark of the publish is stored.
    left = [time for time in (row["queued_at"], row["started_at"]) if time]
    yield Phase.WAITING, min(left, default=ended or now)
    yield Phase.QUEUED, row["started_at"] or ended or now
    if row["started_at"] is None:
        return
    first = row["first_token_seconds"]
    if first is not None:
        spoke = datetime.fromtimestamp(row["started_at"].timestamp() + first, now.tzinfo)
        yield Phase.READING, min(spoke, ended or now)
        yield Phase.WRITING, ended or now
    else:
        yield _unspoken(row, lines), ended or now


def _unready(row: Row, lines: Sequence[Row]) -> Phase:
    """Before the last attempt: of a worker that was lost the ledger has no line."""
    if row["attempt"] == 1:
        return Phase.BLOCKED
    earlier = {line["attempt"] for line in lines} - {row["attempt"]}
    lost = row["losses"] and len(earlier) < row["attempt"] - 1
    return Phase.FAILED if lost else Phase.WAITING


def _unspoken(row: Row, lines: Sequence[Row]) -> Phase:
    if row["state"] not in SUBTASK_TERMINAL:
        return Phase.RUNNING
    if row["state"] == SubtaskState.SUCCEEDED:
        return Phase.READING
    stopped = row["state"] in {SubtaskState.CANCELLED, SubtaskState.SKIPPED}
    failed = any(_is_current(line, row) and line["outcome"] != "cancelled" for line in lines)
    return Phase.STOPPED if stopped and not failed else Phase.FAILED


def _since(began: datetime, time: datetime) -> float:
    return max(0.0, (time - began).total_seconds())


def _lane(number: int, row: Row, title: str, spans: Sequence[Span], seconds: float) -> Lane:
    bars = list(_bars(spans, WIDTH / seconds))
    said = "; ".join(bar.words for bar in bars) or "nothing yet"
    label = shortened(title, _TITLE_CELLS)
    return Lane(row["step"], title, label, number * LANE_HEIGHT, bars, said)


def _bars(spans: Sequence[Span], scale: float) -> Iterator[Bar]:
    """Side by side: what took no time must be seen beside what took long."""
    end = 0.0
    for number, span in enumerate(spans):
        room = WIDTH - (len(spans) - number) * _LEAST_WIDTH  # for those that follow
        x = max(0.0, min(max(span.start * scale, end), room))
        end = min(max(span.end * scale, x + _LEAST_WIDTH), room + _LEAST_WIDTH)
        yield Bar(span, round(x, 1), round(end - x, 1), _words(span))


def _words(span: Span) -> str:
    note = f" ({span.note})" if span.note else ""
    again = f", try {span.attempt}" if span.attempt > 1 else ""
    return f"{span.phase}{note} {_took(span.end - span.start)}{again}"


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def ticks_of(seconds: float) -> list[float]:
    """Round numbers of seconds from 0 on, a handful of them."""
    step = next(size for size in _sizes() if seconds / size <= _TICKS)
    return [number * step for number in range(int(seconds / step) + 1)]


def _sizes() -> Iterator[float]:
    size = 0.001
    while True:
        yield from (size * step for step in _STEPS)
        size *= 10


def _label(at: float) -> str:
    return f"{at * 1000:.0f} ms" if 0 < at < 1 else f"{at:g} s"
