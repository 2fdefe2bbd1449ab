"""Workers and queues of a running installation."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.show.numbers import NONE, count, plural, seconds

Row = Mapping[str, Any]

_WIDE = 110
_SILENT_SECONDS = 15.0


def fleet(
    ready: Mapping[str, Any], workers: Sequence[Row], queues: Sequence[Row], url: str, width: int
) -> RenderableType:
    """What `millrace status` shows."""
    parts: list[RenderableType] = [_headline(ready, workers, url)]
    parts.append(_workers(workers, width) if workers else _nobody(queues))
    parts.append(_queues(queues, width))
    return Group(*parts)


def _headline(ready: Mapping[str, Any], workers: Sequence[Row], url: str) -> Text:
    good = ready.get("status") == "ready"
    line = Text.assemble(("● ", "green" if good else "red"), (url, "bold"))
    line.append(" is ready" if good else " is not ready")
    for name, state in (ready.get("checks") or {}).items():
        if state != "ok":
            line.append(f" · {name}: {state}", style="red")
    slots = sum(worker["slots"] for worker in workers)
    running = sum(worker["running"] for worker in workers)
    return line.append(f" · {plural(len(workers), 'worker')} · {running} of {slots} slots busy")


def _nobody(queues: Sequence[Row]) -> Text:
    kept = [queue["model"] for queue in queues if queue.get("min_workers", 1)]
    if queues and not kept:
        return Text("\nNo worker is running, and none is kept: a question starts one.")
    name = kept[0] if kept else "NAME"
    return Text(f"\nNo worker is running. Start one: millrace worker --model {name}", "yellow")


def _workers(workers: Sequence[Row], width: int) -> Table:
    wide = width >= _WIDE
    table = _table("Worker", "Model")
    table.columns[1].max_width = 40 if wide else 24
    for name in ("State", *(("Host", "Release") if wide else ())):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=24)
    for name in ("Busy", "Seen"):
        table.add_column(name, no_wrap=True, justify="right")
    for worker in workers:
        state, seen = str(worker["state"]), worker["last_seen_seconds"]
        late = seen is not None and seen > _SILENT_SECONDS
        cells = [Text(str(worker["name"])), Text(str(worker["model"])), Text(state, _colour(state))]
        if wide:
            cells += [Text(str(worker["host"])), Text(str(worker["release"]))]
        cells.append(Text(f"{worker['running']}/{worker['slots']}"))
        cells.append(Text(f"{seconds(seen)} ago", "yellow" if late else ""))
        table.add_row(*cells)
    return table


def _colour(state: str) -> str:
    return {"live": "green", "draining": "yellow"}.get(state, "red")


def _queues(queues: Sequence[Row], width: int) -> Table:
    wide = width >= _WIDE
    table = _table("Model", *(("Queue",) if wide else ()))
    for name in ("At broker", "Workers", "Ready", "Queued", "Running"):
        table.add_column(name, no_wrap=True, justify="right")
    for queue in queues:
        depth, consumers = queue["ready"], queue["consumers"]
        missing = Text("no queue", "red") if depth is None else Text(count(depth))
        idle = consumers == 0 and (queue["db_ready"] or queue["db_queued"] or depth)
        table.add_row(
            Text(str(queue["model"])),
            *((Text(str(queue["queue"]), "dim"),) if wide else ()),
            missing,
            Text(_replicas(consumers, queue.get("max_workers")), "red" if idle else ""),
            *(Text(count(queue[name])) for name in ("db_ready", "db_queued", "db_running")),
        )
    return table


def _replicas(consumers: int | None, most: int | None) -> str:
    """Of how many that there may be; an older master does not say."""
    if consumers is None:
        return NONE
    return str(consumers) if most is None else f"{consumers}/{most}"


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)
    return table
