"""Workers and queues of a running installation."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.known import Fleet, Row, missing
from millrace.problems import one_line
from millrace.show.numbers import NONE, count, plural, seconds

_WIDE = 110
_SILENT_SECONDS = 15.0
NO_QUEUE = Text("no queue", "red")


def fleet(seen: Fleet, url: str, width: int, problem: str = "") -> RenderableType:
    """What `millrace status` shows. `problem`: why it is older than it should be."""
    parts: list[RenderableType] = [_headline(seen, url, good=not problem)]
    said = (problem, missing(seen.unknown, broker_answers=seen.broker_answers))
    parts += [Text(one_line(words), "red") for words in said if words]
    if seen.workers is not None:
        parts.append(_workers(seen.workers, width) if seen.workers else _nobody(seen.queues or ()))
    if seen.queues is not None:
        nothing = NO_QUEUE if seen.broker_answers else Text(NONE)
        parts.append(_queues(seen.queues, width, nothing))
        if later := tried_later(seen.queues):
            parts.append(
                Text(f"{later}, after a pause that their engine or the retry budget wants")
            )
    return Group(*parts)


def _headline(seen: Fleet, url: str, *, good: bool) -> Text:
    ready, workers = seen.ready, seen.workers
    good = good and ready.get("status") == "ready"
    line = Text.assemble(("● ", "green" if good else "red"), (url, "bold"))
    line.append(" is ready" if good else " is not ready")
    for name, state in (ready.get("checks") or {}).items():
        if state != "ok":
            line.append(f" · {name}: {state}", style="red")
    if workers is None:
        return line
    return line.append(f" · {plural(len(workers), 'worker')} · {slots_busy(workers)}")


def slots_busy(workers: Sequence[Row]) -> str:
    """`3 of 8 slots busy`, of the workers that take subtasks."""
    live = [worker for worker in workers if worker["state"] == "live"]
    slots, busy = (sum(worker[name] for worker in live) for name in ("slots", "running"))
    return f"{busy} of {slots} slots busy"


def tried_later(queues: Sequence[Row]) -> str:
    """`3 to be tried later`; empty if there are none. An older master does not say."""
    number = sum(queue.get("db_delayed", 0) for queue in queues)
    return f"{count(number)} to be tried later" if number else ""


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


def _queues(queues: Sequence[Row], width: int, nothing: Text) -> Table:
    wide = width >= _WIDE
    table = _table("Model", *(("Queue",) if wide else ()))
    for name in ("At broker", "Workers", "Ready", "Queued", "Running"):
        table.add_column(name, no_wrap=True, justify="right")
    for queue in queues:
        depth, consumers = queue["ready"], queue["consumers"]
        idle = consumers == 0 and (queue["db_ready"] or queue["db_queued"] or depth)
        table.add_row(
            Text(str(queue["model"])),
            *((Text(str(queue["queue"]), "dim"),) if wide else ()),
            nothing if depth is None else Text(count(depth)),
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
