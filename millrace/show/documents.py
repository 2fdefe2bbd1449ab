"""Documents, collections and what became of an ingest."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from millrace.problems import one_line
from millrace.show.numbers import NONE, count, plural, seconds
from queue_schemas.states import DocumentStage

Row = Mapping[str, Any]


def failures_table(failures: Sequence[tuple[str, str, str]]) -> Table:
    """What cannot be searched, and why."""
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Document", overflow="fold", ratio=2)
    table.add_column("Why", overflow="fold", ratio=3)
    table.add_column("Code", no_wrap=True)
    for name, code, message in failures:
        table.add_row(Text(one_line(name)), Text(one_line(message)), Text(code, "red"))
    return table


def documents_table(documents: Sequence[Row]) -> Table:
    """A line for each document."""
    table = _table(("Document", 2), ("Collection", 1))
    for name in ("State", "Chunks", "Id"):
        table.add_column(name, no_wrap=True)
    for document in documents:
        table.add_row(
            Text(one_line(document["name"])),
            Text(document["collection"]),
            Text(state_words(document)),
            Text(count(document["progress"]["chunks"]), justify="right"),
            Text(document["id"], "dim"),
        )
    return table


def collections_table(collections: Sequence[Row]) -> Table:
    """A line for each collection."""
    table = _table(("Collection", 2), ("Embedding model", 2))
    for name in ("Strategy", "Language", "Documents", "Chunks"):
        table.add_column(name, no_wrap=True)
    for each in collections:
        table.add_row(
            Text(each["name"]),
            Text(each["embedding_model"] or NONE),
            Text(each["strategy"]),
            Text(each["language"]),
            Text(count(each["documents"]["total"]), justify="right"),
            Text(count(each["chunks"]), justify="right"),
        )
    return table


def document_lines(document: Row) -> list[str]:
    """Everything about one document that a person may want to know."""
    error, took = document["error"], document["timings_ms"]
    times = [f"{stage} {seconds(took[stage] / 1000)}" for stage in DocumentStage if stage in took]
    parts = {
        "id": document["id"],
        "collection": document["collection"],
        "url": document["url"],
        "state": state_words(document),
        "error": f"{error['code']}: {error['message']}" if error else None,
        "content": f"{document['media_type'] or NONE}, {plural(document['bytes'], 'byte')}",
        "chunks": count(document["progress"]["chunks"]),
        "times": ", ".join(times),
        "odd": ", ".join(f"{flag} {number}" for flag, number in document["flags"].items()),
    }
    lines = [f"{label:<12}{one_line(value, 1000)}" for label, value in parts.items() if value]
    return [one_line(document["name"]), *lines]


def state_words(document: Row) -> str:
    """`running: embed 40 %`."""
    if document["state"] != "running" or not document["stage"]:
        return str(document["state"])
    percent = document["progress"]["percent"]
    return f"running: {document['stage']} {percent:.0f} %"


def _table(*stretching: tuple[str, int]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    for name, ratio in stretching:
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=ratio)
    return table
