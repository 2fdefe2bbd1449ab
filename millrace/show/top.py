"""What `millrace top` shows: totals, queues, workers and requests, as many as fit."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.known import Fleet, Row, missing
from millrace.problems import one_line
from millrace.show.fleet import NO_QUEUE, slots_busy, tried_later
from millrace.show.numbers import NONE, count, plural, seconds
from millrace.show.requests import requests_table

_WIDE = 100
_MEDIUM = 72
_SPARKS = "▁▂▃▄▅▆▇█"
_CURVE = 24
"""Looks that a curve of a queue's depth has."""
_SILENT_SECONDS = 15.0
_HEADER_LINES = 4
"""A table's names, the line below them, and an empty one above and below; dense: the names only."""
_FEWEST_ROWS = 2
"""Of each table: where there is no room for them, tables are dense."""


class Order(StrEnum):
    """Of the queues."""

    REGISTRY = "as registered"
    DEPTH = "deepest first"


class Shown(StrEnum):
    """Which requests."""

    ALL = "all requests"
    OPEN = "open requests"
    FAILED = "failed requests"


@dataclass(frozen=True)
class Look(Fleet):
    """What a master said at one moment, as far as it is known."""

    requests: Sequence[Row] | None = None


def _with_what_was(look: Look, before: Look) -> Look:
    """A look with what it does not know itself."""
    kept = {name: getattr(before, name) for name in look.unknown}
    if "queues" in kept:
        kept["broker_answers"] = before.broker_answers
    return replace(look, **kept)


@dataclass
class Top:
    """The latest look, and how deep the queues have been."""

    url: str
    look: Look | None = None
    problem: str | None = None
    """Why the latest look came to nothing; what is shown is older then."""
    order: Order = Order.REGISTRY
    shown: Shown = Shown.ALL
    depths: dict[str, deque[int]] = field(default_factory=dict)

    def take(self, look: Look) -> None:
        """A newer look; what it does not know stays as it was known last."""
        self.problem = missing(look.unknown, broker_answers=look.broker_answers) or None
        if self.look is not None and look.unknown:
            self.problem = f"trying again: {'; '.join(dict.fromkeys(look.unknown.values()))}"
            look = _with_what_was(look, self.look)
        self.look = look
        for queue in look.queues or ():
            depths = self.depths.setdefault(str(queue["model"]), deque(maxlen=_CURVE))
            depths.append(waiting(queue))

    def render(self, clock: str, width: int, height: int, *, keys: bool = True) -> RenderableType:
        """The frame at this time, in at most so many lines; `keys`: with a line of what they do."""
        parts: list[RenderableType] = [self._headline(clock)]
        if self.problem is not None:
            parts.append(Text(one_line(self.problem), "red", no_wrap=True, overflow="ellipsis"))
        if self.look is None:
            return Group(*parts)
        parts.append(totals(self.look))
        if keys:
            parts.append(Text(f"q quits · s: {self.order} · tab: {self.shown}", "dim"))
        return Group(*parts, *self._tables(self.look, width, height - len(parts)))

    def _tables(self, look: Look, width: int, height: int) -> list[Table]:
        """As many tables as fit with a row at least: the workers are left out first."""
        dense = height < 3 * (_HEADER_LINES + _FEWEST_ROWS)
        header = 1 if dense else _HEADER_LINES
        known = {"requests": look.requests, "queues": look.queues, "workers": look.workers}
        wanted = {name: len(rows) for name, rows in known.items() if rows is not None}
        while len(wanted) > 1 and height < len(wanted) * (header + 1):
            wanted.popitem()
        rows = dict(
            zip(wanted, shares(height - len(wanted) * header, *wanted.values()), strict=True)
        )
        tables = []
        if "queues" in rows:
            tables.append(self._queues(width, rows["queues"]))
        if "workers" in rows:
            tables.append(_workers(look.workers or (), width, rows["workers"]))
        if look.requests is not None:
            listed = look.requests[: rows["requests"]]
            tables.append(requests_table(listed, width, models=True))
        for table in tables if dense else ():
            table.box = None
        return tables

    def _headline(self, clock: str) -> Text:
        ready = self.look is not None and self.look.ready.get("status") == "ready"
        good = ready and self.problem is None
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append("● ", "green" if good else "red").append(self.url, "bold")
        line.append(f"  {clock}", "dim")
        for name, state in (self.look.ready.get("checks") or {}).items() if self.look else ():
            if state != "ok":
                line.append(f"  {name}: {state}", "red")
        return line

    def _queues(self, width: int, rows: int) -> Table:
        look = self.look
        queues = list(look.queues or ()) if look else []
        nothing = NO_QUEUE if look and look.broker_answers else Text(NONE)
        if self.order is Order.DEPTH:
            queues.sort(key=waiting, reverse=True)
        wide, medium = width >= _WIDE, width >= _MEDIUM
        table = _table("Model")
        if medium:
            table.add_column("Waiting", no_wrap=True, width=_CURVE if wide else 10)
        for name in ("Broker", *(("Window",) if medium else ()), "Database", "Running", "Workers"):
            table.add_column(name, no_wrap=True, justify="right")
        for queue in queues[:rows]:
            curve = sparkline(self.depths.get(str(queue["model"]), ()))
            table.add_row(
                Text(one_line(str(queue["model"]))),
                *([Text(curve if wide else curve[-10:], "cyan")] if medium else []),
                nothing if queue["ready"] is None else Text(count(queue["ready"])),
                *([Text(count(queue.get("window")), "dim")] if medium else []),
                Text(count(queue["db_ready"])),
                Text(count(queue["db_running"])),
                _consumers(queue),
            )
        return _cut(table, len(queues) - rows)


def waiting(queue: Row) -> int:
    """Subtasks of a model that nobody has begun, wherever they are."""
    return int(queue["db_ready"]) + int(queue["db_queued"])


def sparkline(depths: Sequence[int] | deque[int]) -> str:
    """A curve of depths, with the deepest at the top."""
    most = max(depths, default=0)
    if most == 0:
        return _SPARKS[0] * len(depths)
    steps = len(_SPARKS) - 1
    return "".join(_SPARKS[-(-depth * steps // most)] for depth in depths)


def shares(room: int, *wanted: int) -> tuple[int, ...]:
    """So many lines for each table: what they want, else a fair share of what there is."""
    given, left = [0] * len(wanted), room
    smallest_first = sorted(range(len(wanted)), key=wanted.__getitem__)
    for done, place in enumerate(smallest_first):
        given[place] = max(1, min(wanted[place], left // (len(wanted) - done)))
        left -= given[place]
    return tuple(given)


def totals(look: Look) -> Text:
    """The installation in one line, as far as it is known."""
    facts = []
    if (queues := look.queues) is not None:
        at_broker = sum(queue["ready"] or 0 for queue in queues) if look.broker_answers else None
        facts.append(f"{count(at_broker)} at the broker")
        facts.append(f"{count(sum(queue['db_ready'] for queue in queues))} in the database")
        facts.append(f"{count(sum(queue['db_running'] for queue in queues))} running")
        facts += [later] if (later := tried_later(queues)) else []
    if (workers := look.workers) is not None:
        facts.append(plural(len(workers), "worker"))
        facts.append(slots_busy(workers))
    return Text(" · ".join(facts), no_wrap=True, overflow="ellipsis")


def _consumers(queue: Row) -> Text:
    there, most = queue["consumers"], queue.get("max_workers")
    if there is None:
        return Text(NONE)
    nobody = there == 0 and waiting(queue) > 0
    return Text(str(there) if most is None else f"{there}/{most}", "red" if nobody else "")


def _workers(workers: Sequence[Row], width: int, rows: int) -> Table:
    wide, medium = width >= _WIDE, width >= _MEDIUM
    table = _table("Worker", *(("On",) if medium else ()))
    table.add_column("Busy", no_wrap=True)
    table.add_column("State", no_wrap=True)
    for name in (*(("Up",) if wide else ()), "Seen"):
        table.add_column(name, no_wrap=True, justify="right")
    for worker in workers[:rows]:
        seen, up = worker["last_seen_seconds"], worker.get("up_seconds")
        late = seen is not None and seen > _SILENT_SECONDS
        live = worker["state"] == "live"
        table.add_row(
            Text(one_line(str(worker["name"]))),
            *([Text(one_line(str(worker["model"])))] if medium else []),
            slots(worker["running"], worker["slots"]),
            Text(str(worker["state"]), "green" if live else "yellow"),
            *([Text(seconds(up))] if wide else []),
            Text(f"{seconds(seen)} ago", "yellow" if late else ""),
        )
    return _cut(table, len(workers) - rows)


def slots(running: int, number: int) -> Text:
    """Slots as signs, those in use first; as numbers where they are many."""
    if number > 8:
        return Text(f"{running}/{number}", "cyan" if running else "")
    return Text.assemble(("▮" * running, "cyan"), ("▯" * max(0, number - running), "dim"))


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _cut(table: Table, hidden: int) -> Table:
    if hidden > 0:
        table.columns[0].header = f"{table.columns[0].header} (and {hidden} more)"
    return table
