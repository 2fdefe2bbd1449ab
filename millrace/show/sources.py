"""The sources of an answer in a terminal: what its numbers stand for."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

Record = Mapping[str, Any]

_LONGEST_PIECE = 100


def sources(record: Record) -> Iterator[Table | Text]:
    """The cited sources; what was found and not cited only as a count. Nothing where none was."""
    found = record.get("sources") or ()
    if not found:
        return
    cited = {source["number"] for line in record["citations"] for source in line["sources"]}
    made_up = {number for line in record["citations"] for number in line["unknown"]}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for source in found:
        if source["number"] in cited:
            number = Text(f"[{source['number']}]", style="bold")
            table.add_row(number, Text.assemble(_label(source), "  ", (_piece(source), "dim")))
    if table.row_count:
        yield table
    rest = len(found) - table.row_count
    if rest:
        yield Text(f"{rest} more found and not cited", style="dim")
    if made_up:
        numbers = ", ".join(f"[{number}]" for number in sorted(made_up))
        yield Text(f"{numbers} cites nothing: the model made it up", style="yellow")


def _label(source: Mapping[str, Any]) -> str:
    page = f", page {source['page']}" if source["page"] else ""
    heading = f": {' / '.join(source['heading'])}" if source["heading"] else ""
    return f"{source['name']}{page}{heading}"


def _piece(source: Mapping[str, Any]) -> str:
    text = " ".join(source["text"].split())
    return text if len(text) <= _LONGEST_PIECE else f"{text[:_LONGEST_PIECE]}…"
