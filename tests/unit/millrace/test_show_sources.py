"""The sources of an answer below it."""

from io import StringIO
from typing import Any

from rich.console import Console

from millrace.show.sources import sources
from tests.doubles.found import a_source


def shown(record: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=80)
    console.print(*sources(record), sep="\n")
    text = console.file
    assert isinstance(text, StringIO)
    return text.getvalue()


def record(cited: list[int], unknown: list[int] | None = None) -> dict[str, Any]:
    found = [
        a_source(11, "A weir is a low dam. " * 20, number=1, page=3, heading=("Water", "Weirs")),
        a_source(21, "Flour is stored dry.", number=2),
    ]
    lines = [{"number": number} for number in cited]
    return {
        "sources": [source.model_dump(mode="json") for source in found],
        "citations": [{"sources": lines, "unknown": unknown or []}],
    }


def test_cited_sources_are_shown_with_where_they_stand() -> None:
    text = shown(record([1]))
    assert "[1]" in text
    assert "doc-1.md, page 3: Water / Weirs" in text
    assert "…" in text
    assert "Flour" not in text
    assert "1 more found and not cited" in text


def test_numbers_that_cite_nothing_are_pointed_out() -> None:
    assert "[9] cites nothing" in shown(record([1, 2], [9]))


def test_an_answer_without_sources_shows_none() -> None:
    assert shown({"sources": [], "citations": []}).strip() == ""
    assert shown({}).strip() == ""
