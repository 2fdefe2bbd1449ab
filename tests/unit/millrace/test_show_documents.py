"""A document on a page."""

from typing import Any

from rich.console import Console

from millrace.show.documents import document_lines, failures_table

DOCUMENT: dict[str, Any] = {
    "id": "019aa1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b",
    "name": "decisions/0001.md",
    "collection": "default",
    "url": None,
    "state": "ready",
    "stage": None,
    "error": None,
    "media_type": "text/markdown",
    "bytes": 7,
    "progress": {"chunks": 1, "embedded": 0, "percent": 100.0},
    # In the order in which the database gives them.
    "timings_ms": {"chunk": 2000.0, "embed": 3000.0, "parse": 1000.0, "store": 4000.0},
    "flags": {},
}


def test_times_are_in_the_order_of_the_stages() -> None:
    (times,) = [line for line in document_lines(DOCUMENT) if line.startswith("times")]
    stages = [part.split()[0] for part in times.removeprefix("times").split(",")]
    assert stages == ["parse", "chunk", "embed", "store"]


def test_a_reason_is_never_cut() -> None:
    message = "the embedding model did not answer: " + "a long reason " * 10 + "x" * 60
    console = Console(width=60)
    with console.capture() as capture:
        console.print(failures_table([("decisions/" + "0001" * 20, "embedding_away", message)]))
    shown = capture.get()
    assert "…" not in shown
    assert (shown.count("reason"), shown.count("x")) == (10, 60)
