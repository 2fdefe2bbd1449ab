"""The picture of a trace in the docs."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.trace_drawing import Bar, in_order, keep, longest, read, svg, titled

IMAGES = Path(__file__).parents[3] / "docs" / "images"
RECORDED = IMAGES / "trace.jsonl"
RECORDED_BARS = read(RECORDED)


def test_the_picture_in_the_docs_is_of_the_trace_beside_it() -> None:
    assert (IMAGES / "trace.svg").read_text("utf-8") == svg(longest(read(RECORDED)))


def test_the_recorded_trace_crosses_the_queue_between_three_processes() -> None:
    trace = longest(read(RECORDED))
    by_id = {bar.id: bar for bar in trace}
    assert {bar.who for bar in trace} == {"master", "worker mill-1", "worker mill-2"}
    crossed = {
        (by_id[bar.parent].name, bar.name)
        for bar in trace
        if bar.parent in by_id and by_id[bar.parent].who != bar.who
    }
    assert crossed == {("publish", "execute"), ("publish result", "collect")}


def test_every_span_is_within_the_picture() -> None:
    picture = ElementTree.fromstring(svg(longest(read(RECORDED))))
    wide, high = float(picture.attrib["width"]), float(picture.attrib["height"])
    bars = [each.attrib for each in picture if each.attrib.get("class", "").startswith("who-")]
    assert len(bars) == len(read(RECORDED)) + 3, "the legend's three included"
    for bar in bars:
        assert 0 <= float(bar["x"]) <= float(bar["x"]) + float(bar["width"]) <= wide
        assert 0 <= float(bar["y"]) <= high


def test_callers_stand_above_what_they_called() -> None:
    rows = in_order(read(RECORDED))
    assert [(depth, bar.name) for depth, bar in rows[:3]] == [
        (0, "POST /v1/chat/completions"),
        (1, "submit"),
        (2, "plan"),
    ]
    assert len(rows) == len(read(RECORDED))


def test_of_a_file_with_several_traces_the_longest_is_kept(tmp_path: Path) -> None:
    written, kept = tmp_path / "written.jsonl", tmp_path / "kept.jsonl"
    other = RECORDED.read_text("utf-8").splitlines()[0]
    trace = read(RECORDED)[0].trace
    written.write_text(RECORDED.read_text("utf-8") + other.replace(trace, "ab" * 16) + "\n")
    keep(written, kept)
    assert kept.read_text("utf-8") == RECORDED.read_text("utf-8")


def test_a_request_is_drawn_rather_than_a_longer_ingestion() -> None:
    ingestion = replace(RECORDED_BARS[0], trace="ab" * 16, name="ingest", begin=0, strategy="")
    both = [ingestion, *RECORDED_BARS]
    assert longest(both) == RECORDED_BARS
    assert longest(both, "ABAB") == longest([ingestion]) == [ingestion]
    with pytest.raises(ValueError, match="no trace begins with 'cd'"):
        longest(both, "cd")


def test_the_title_says_what_it_is() -> None:
    assert titled(RECORDED_BARS) == "One request (split): 25 spans in 2.76 s"
    alone = Bar("a", "b", "", "ingest", "celery", 0, 50_000_000, "", False, ())
    assert titled([alone]) == "One trace of ingest: 1 span in 0.05 s"


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(ValueError, match="empty"):
        longest(read(empty))
