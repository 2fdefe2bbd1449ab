"""Requests: a table of them, and all that is known of one."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.problems import one_line
from millrace.show.bill import bill
from millrace.show.numbers import NONE, count, seconds
from millrace.show.sources import sources
from millrace.show.timeline import timeline

Record = Mapping[str, Any]

SHORT = 8
"""Characters of an id that are shown; `show` and `millrace logs` take them."""
_WIDE = 100
_MEDIUM = 72
_MODEL = 24
"""Cells of a model that stands beside its question."""
COLOURS = {
    "accepted": "blue",
    "planning": "cyan",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "yellow",
}


def requests_table(requests: Sequence[Record], width: int, *, models: bool = False) -> Table:
    """A line for each request, as it fits. `models`: those rather than times, or than questions."""
    wide, medium = width >= _WIDE, width >= _MEDIUM
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Id", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Strategy", no_wrap=True, overflow="ellipsis", max_width=12)
    for name in ("Done", *(("Tokens",) if medium else ()), "Took"):
        table.add_column(name, no_wrap=True, justify="right")
    questions = wide or not models
    if wide and not models:
        table.add_column("Asked (UTC)", no_wrap=True)
    if models:
        most, ratio = (_MODEL, None) if wide else (None, 1)
        table.add_column("Model", no_wrap=True, overflow="ellipsis", max_width=most, ratio=ratio)
    if questions:
        table.add_column("Question", no_wrap=True, overflow="ellipsis", ratio=1)
    for request in requests:
        asked = str(request["created_at"])[5:16].replace("T", " ")
        table.add_row(
            Text(str(request["id"])[:SHORT]),
            state(request),
            Text(str(request["strategy"])),
            Text(f"{request['ended']}/{request['subtasks']}"),
            *([Text(count(request["tokens"]))] if medium else []),
            Text(seconds(request["seconds"])),
            *([Text(asked, "dim")] if wide and not models else []),
            *([_said(request["model"])] if models else []),
            *([_said(request["question"])] if questions else []),
        )
    return table


def _said(words: str | None) -> Text:
    return Text(one_line(str(words or NONE), 200))


def state(request: Record) -> Text:
    """A request's state in its colour, with the code of what went wrong."""
    name = str(request["state"])
    return Text(name, COLOURS.get(name, ""))


def request_page(record: Record, now: datetime, width: int, *, answer: bool) -> RenderableType:
    """What `millrace requests show` shows."""
    parts: list[RenderableType] = [_headline(record), Text(), timeline(record, now, width)]
    parts.append(bill(record, width))
    parts += [line for lines in (_rules(record), _judgements(record)) for line in lines]
    if record.get("citations") is not None:
        parts += sources(record)
    if answer:
        parts += [Text(), Text(_printable(record.get("answer") or "There is no answer."))]
    return Group(*parts)


def _headline(record: Record) -> Text:
    name = str(record["state"])
    line = Text.assemble((str(record["model"]), "bold"), " · ", (name, COLOURS.get(name, "")))
    if error := record.get("error"):
        line.append(f" · {error.get('code')}", "red")
    if place := record.get("queue"):
        line.append(f" · place {place['position']} of its model's line", "yellow")
    return line.append(f" · asked {str(record['created_at'])[:19].replace('T', ' ')} UTC", "dim")


def _rules(record: Record) -> Iterator[Text]:
    for rule in (record.get("plan") or {}).get("rules") or ():
        yield Text(f"rule {one_line(rule['name'])} v{rule['version']} ({rule['arm']})", "dim")


def _judgements(record: Record) -> Iterator[Text]:
    for each in record.get("judgements") or ():
        score = each.get("score")
        said = one_line(each.get("comment") or each.get("reason") or "", 200)
        worth = NONE if score is None else f"{score:.2f}"
        yield Text(f"{each['kind']} {one_line(each['rater'])}: {worth} {said}".rstrip())


def _printable(text: str) -> str:
    """Control characters of an answer must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
