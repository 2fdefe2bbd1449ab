"""When each subtask of a request waited, was read and was answered: a bar for each attempt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.problems import one_line
from millrace.show.numbers import seconds
from millrace.show.states import look

Record = Mapping[str, Any]

_NARROW = 60
_WIDE = 110


class Phase(Enum):
    """What happened in a piece of a bar: its sign, its colour and its name."""

    WAITS = ("·", "blue", "waits")
    READS = ("░", "cyan", "until the first word")
    WRITES = ("█", "green", "writes")
    FAILED = ("▒", "red", "failed")
    IN_VAIN = ("▒", "yellow", "did not count")


@dataclass(frozen=True)
class Piece:
    """A part of a bar, in seconds since the request was accepted."""

    phase: Phase
    begin: float
    end: float


@dataclass(frozen=True)
class Lane:
    """One line of a timeline."""

    mark: str
    style: str
    label: str
    pieces: tuple[Piece, ...]
    note: str


def timeline(record: Record, now: datetime, width: int) -> RenderableType:
    """The lanes of a request below each other. `now` ends what has not ended."""
    rows = list(lanes(record, now))
    length = _length(record, rows, now)
    cells = max(12, width * 2 // 5 if width < _WIDE else width // 2)
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    if width >= _NARROW:
        table.add_column(no_wrap=True, width=cells)
    table.add_column(no_wrap=True, justify="right", overflow="ellipsis", max_width=18)
    for lane in rows:
        label = Text.assemble((lane.mark, lane.style), " ", one_line(lane.label, 200))
        note = Text(one_line(lane.note, 60), lane.style)
        table.add_row(label, *([bar(lane.pieces, length, cells)] if width >= _NARROW else []), note)
    if width < _NARROW:
        return table
    table.add_row(Text(), _scale(length, cells), Text())
    return Group(table, _legend(rows))


def lanes(record: Record, now: datetime) -> Iterator[Lane]:
    """A lane for each subtask, and below it one for each earlier attempt of it."""
    start = _time(record["created_at"])
    if start is None:
        return
    steps = {step["key"]: step for step in (record.get("plan") or {}).get("steps", ())}
    for subtask in record.get("subtasks", ()):
        spent = subtask.get("attempts") or ()
        last = [line for line in spent if line["attempt"] == subtask["attempt"] and line["applied"]]
        step = steps.get(subtask["step"], {})
        yield _lane(subtask, step, last, start, now)
        free = _free(record, step, start)
        yield from _earlier([line for line in spent if line not in last], free, start)


def _earlier(spent: Sequence[Record], free: float, start: datetime) -> Iterator[Lane]:
    """Attempts that came to nothing, the first of which could have begun then."""
    for line in spent:
        mark, style = look("failed" if line["applied"] else "skipped")
        label = f"try {line['attempt']}: {line['outcome']}"
        engine = list(_engine(line, start))
        waited = [Piece(Phase.WAITS, free, engine[0].begin)] if engine else []
        free = engine[-1].end if engine else free
        note = seconds(line["engine_seconds"])
        yield Lane(f"  {mark}", style, label, (*waited, *engine), note)


def _free(record: Record, step: Record, start: datetime) -> float:
    """When the last of what a step waits for had ended."""
    needed = set(step.get("depends_on") or ())
    ends = (_time(s.get("finished_at")) for s in record["subtasks"] if s["step"] in needed)
    return max((_since(end, start) for end in ends if end), default=0.0)


def _lane(
    subtask: Record, step: Record, last: Sequence[Record], start: datetime, now: datetime
) -> Lane:
    mark, style = look(str(subtask["state"]))
    after = ", ".join(step.get("depends_on") or ())
    title = subtask.get("title") or subtask["step"]
    label = f"{title} (after {after})" if after else str(title)
    again = f" · try {subtask['attempt']}" if subtask["attempt"] > 1 else ""
    took = subtask["total_seconds"]
    note = seconds(took) if subtask["state"] == "succeeded" else str(subtask["state"])
    return Lane(mark, style, label, tuple(_pieces(subtask, last, start, now)), note + again)


def _pieces(
    subtask: Record, last: Sequence[Record], start: datetime, now: datetime
) -> Iterator[Piece]:
    ready, begun, ended = (
        _time(subtask.get(name)) for name in ("ready_at", "started_at", "finished_at")
    )
    if ready is None:
        return  # it waits for others
    engine = [piece for line in last for piece in _engine(line, start)]
    until = engine[0].begin if engine else _since(begun or ended or now, start)
    yield Piece(Phase.WAITS, min(_since(ready, start), until), until)  # a pause may still last
    yield from engine
    if begun and not engine and not ended:
        yield Piece(Phase.READS, _since(begun, start), _since(now, start))


def _engine(line: Record, start: datetime) -> Iterator[Piece]:
    """What an execution that ended took of its engine."""
    finished = _time(line["finished_at"])
    if finished is None:
        return
    end = _since(finished, start)
    begin = max(0.0, end - line["engine_seconds"])
    if line["outcome"] != "completed":
        yield Piece(Phase.FAILED, begin, end)
    elif not line["applied"]:
        yield Piece(Phase.IN_VAIN, begin, end)
    else:
        first = begin + (line["first_token_seconds"] or 0.0)
        yield Piece(Phase.READS, begin, min(first, end))
        yield Piece(Phase.WRITES, min(first, end), end)


def bar(pieces: Sequence[Piece], length: float, cells: int) -> Text:
    """Pieces in so many cells. Each that took any time has one at least; later ones cover."""
    line: list[Phase | None] = [None] * cells
    for piece in pieces:
        if piece.end <= piece.begin:
            continue
        first = min(cells - 1, max(0, int(piece.begin / length * cells)))
        last = min(cells, max(first + 1, round(piece.end / length * cells)))
        line[first:last] = [piece.phase] * (last - first)
    drawn = Text()
    for phase in line:
        if phase is None:
            drawn.append(" ")
        else:
            drawn.append(phase.value[0], phase.value[1])
    return drawn


def _length(record: Record, rows: Sequence[Lane], now: datetime) -> float:
    start, end = _time(record["created_at"]), _time(record.get("finished_at"))
    whole = _since(end or now, start) if start else 0.0
    return max([whole, 0.001, *(piece.end for lane in rows for piece in lane.pieces)])


def _scale(length: float, cells: int) -> Text:
    end = seconds(length)
    return Text(f"0{end.rjust(cells - 1)}", "dim")


def _legend(rows: Sequence[Lane]) -> Text:
    used = {piece.phase for lane in rows for piece in lane.pieces}
    line = Text()
    for phase in Phase:
        if phase in used:
            sign, style, name = phase.value
            line.append(f"{sign} ", style).append(f"{name}  ", "dim")
    return line


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _since(at: datetime, start: datetime) -> float:
    return max(0.0, (at - start).total_seconds())
