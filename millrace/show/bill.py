"""What a finished request took: times, tokens and cost of each subtask, and the totals."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.problems import one_line
from millrace.show.numbers import cost, count, plural, seconds
from millrace.show.states import look

Record = Mapping[str, Any]

_WIDE = 110
_LONGEST_TITLE = 60
_COLOURS = {"completed": "green", "failed": "red", "expired": "red", "cancelled": "yellow"}


def bill(record: Record, width: int) -> RenderableType:
    """The table and the lines below it."""
    return Group(_table(record, width), *_lines(record))


def _table(record: Record, width: int) -> Table:
    wide, priced = width >= _WIDE, bool((record.get("usage") or {}).get("cost"))
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Part", ratio=1)
    table.add_column("Model", no_wrap=True, overflow="ellipsis", max_width=_WIDE if wide else 16)
    if wide:
        table.add_column("Worker", no_wrap=True, overflow="ellipsis", max_width=30)
    for name in ("Queue", "First", "Total", "In", "Out", *(("Cost",) if priced else ())):
        table.add_column(name, no_wrap=True, justify="right")
    for subtask in record.get("subtasks", ()):
        cells = [_part(subtask), Text(str(subtask["model"]))]
        if wide:
            cells.append(Text(str(subtask.get("worker") or "")))
        cells += [Text(number) for number in _numbers(subtask, priced)]
        table.add_row(*cells)
    return table


def _part(subtask: Record) -> Text:
    mark, style = look(str(subtask["state"]))
    title = one_line(str(subtask.get("title") or subtask["step"]))
    tries = f" (try {subtask['attempt']})" if subtask["attempt"] > 1 else ""
    short = title if len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 1] + "…"
    return Text.assemble((mark, style), " ", short, (tries, "yellow"))


def _numbers(subtask: Record, priced: bool) -> list[str]:
    numbers = [
        seconds(subtask["queue_seconds"]),
        seconds(subtask["first_token_seconds"]),
        seconds(subtask["total_seconds"]),
        count(subtask["prompt_tokens"]),
        count(subtask["completion_tokens"]),
    ]
    return [*numbers, cost(subtask["cost"])] if priced else numbers


def _lines(record: Record) -> list[Text]:
    lines = [_total(record)]
    if gain := _gain(record):
        lines.append(Text(gain))
    plan = record.get("plan") or {}
    why = plan.get("reason") or (plan.get("gate") or {}).get("reason")
    if why:
        lines.append(Text(f"{plan['strategy']}: {why}", style="dim"))
    for subtask in record.get("subtasks", ()):
        if error := subtask.get("error"):
            name = subtask.get("title") or subtask["step"]
            lines.append(Text(one_line(f"{name}: {error.get('message', '')}"), style="red"))
    lines.append(Text(f"request {record['id']}", style="dim"))
    return lines


def _total(record: Record) -> Text:
    usage, measured = record.get("usage") or {}, record.get("measured") or {}
    state = str(record["state"])
    facts = [
        plural(len(record.get("subtasks", ())), "subtask"),
        f"{count(usage.get('total_tokens', 0))} tokens",
        f"{seconds(usage.get('engine_seconds') or 0.0)} engine",
    ]
    if usage.get("cost"):
        facts.append(f"{usage.get('currency', '')} {cost(usage['cost'])}".strip())
    wall = measured.get("wall_seconds")
    took = f" in {seconds(wall)}" if wall is not None else ""
    return Text.assemble((state, f"bold {_COLOURS.get(state, '')}"), took, " · ", " · ".join(facts))


def _gain(record: Record) -> str:
    measured = record.get("measured") or {}
    speedup, extra = measured.get("speedup"), measured.get("extra_tokens")
    facts = []
    if speedup is not None:
        facts.append(f"{speedup:.1f} times as fast as one part after the other")
    if speedup is not None and extra:
        facts.append(f"{count(extra)} prompt tokens more")
    return " · ".join(facts)
