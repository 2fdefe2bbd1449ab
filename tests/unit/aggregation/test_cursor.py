import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.aggregation.cursor import Cursor, PartText, advance, final_text, is_complete
from master.aggregation.layout import Segment

FRAGMENTS = st.sampled_from(["a", " ", "\n", "`", "```\n", "ü", "## x", "😀"])
PIECES = st.lists(st.lists(FRAGMENTS, max_size=4).map("".join), max_size=5)
ENDS = st.sampled_from(["done", "missing", "running"])


@st.composite
def histories(draw):
    """Segments, and every state that the parts' texts went through, in a random interleaving."""
    count = draw(st.integers(1, 5))
    headings = [draw(st.sampled_from(["", "## One\n\n"])) for _ in range(count)]
    segments = [Segment(f"part-{n}", headings[n], f"Part {n + 1}") for n in range(count)]
    steps = [(n, piece) for n in range(count) for piece in [*draw(PIECES), draw(ENDS)]]
    order = draw(st.permutations([n for n, _ in steps]))
    queues = {n: [piece for at, piece in steps if at == n] for n in range(count)}
    texts, states = {}, []
    for n in order:
        piece = queues[n].pop(0)
        before = texts.get(f"part-{n}", PartText())
        texts[f"part-{n}"] = _grown(before, piece, last=not queues[n])
        states.append(dict(texts))
    return segments, states


def _grown(before: PartText, piece: str, *, last: bool) -> PartText:
    if not last:
        return replace(before, text=before.text + piece)
    return {
        "done": replace(before, done=True),
        "missing": replace(before, missing="the engine\nfailed."),
        "running": before,
    }[piece]


@given(histories(), st.data())
def test_what_was_shown_joined_is_always_the_final_text_and_never_shrinks(history, data):
    segments, states = history
    cursor, shown = Cursor(), ""
    for texts in states:
        if data.draw(st.booleans()):  # a replica does not look after every change
            following, piece = advance(cursor, segments, texts)
            assert following >= cursor
            cursor, shown = following, shown + piece
        assert final_text(segments, texts).startswith(shown)
    cursor, piece = advance(cursor, segments, states[-1])
    assert shown + piece == final_text(segments, states[-1])
    assert is_complete(cursor, segments) == all(
        states[-1][segment.step_key].ended for segment in segments
    )


@given(histories())
def test_nothing_new_gives_nothing_to_show(history):
    segments, states = history
    cursor, _ = advance(Cursor(), segments, states[-1])
    assert advance(cursor, segments, states[-1]) == (cursor, "")


TWO = (Segment("a", "## A\n\n", "Part 1 (A)"), Segment("b", "## B\n\n", "Part 2 (B)"))


def test_the_first_part_is_live_and_the_second_waits_for_it():
    texts = {"a": PartText("Hel"), "b": PartText("second", done=True)}
    cursor, shown = advance(Cursor(), TWO, texts)
    assert shown == "## A\n\nHel"
    cursor, shown = advance(cursor, TWO, texts | {"a": PartText("Hello", done=True)})
    assert shown == "lo\n\n## B\n\nsecond"
    assert is_complete(cursor, TWO)


def test_a_heading_waits_for_its_first_text():
    texts = {"a": PartText("x", done=True), "b": PartText("")}
    cursor, shown = advance(Cursor(), TWO, texts)
    assert shown == "## A\n\nx"
    assert cursor == Cursor(1, 0)


def test_a_missing_part_is_named_with_the_reason_on_one_line():
    texts = {"a": PartText(missing="engine\nbusy."), "b": PartText("ok", done=True)}
    assert final_text(TWO, texts) == (
        "## A\n\n*Part 1 (A) could not be answered: engine busy.*\n\n## B\n\nok"
    )


def test_a_part_that_broke_off_keeps_its_text_and_says_so():
    texts = {"a": PartText("Half", missing="out of memory"), "b": PartText("ok", done=True)}
    assert final_text(TWO, texts).startswith(
        "## A\n\nHalf\n\n*Part 1 (A) could not be answered completely: out of memory.*\n\n## B"
    )


def test_a_code_block_that_was_cut_off_does_not_swallow_the_next_part():
    texts = {"a": PartText("```py\nx = 1", done=True), "b": PartText("ok", done=True)}
    assert "x = 1\n```\n\n## B" in final_text(TWO, texts)


def test_a_single_answer_is_passed_on_character_by_character():
    segments = (Segment("answer"),)
    text = "```py\nunclosed"
    assert final_text(segments, {"answer": PartText(text, done=True)}) == text


def test_no_segments_means_that_nothing_is_shown_and_nothing_is_complete():
    assert advance(Cursor(), (), {}) == (Cursor(), "")
    assert not is_complete(Cursor(), ())


@pytest.mark.parametrize("at", range(12))
def test_another_replica_goes_on_from_any_offset(at):
    texts = {"a": PartText("Hello", done=True), "b": PartText("x", done=True)}
    whole = final_text(TWO, texts)
    assert advance(Cursor(0, at), TWO, texts)[1] == whole[at:]


def test_the_work_is_in_the_new_text_not_in_the_whole():
    text = "word " * 200_000
    segments = (Segment("answer"),)
    cursor, _ = advance(Cursor(), segments, {"answer": PartText(text)})
    longer = PartText(text + "x")
    tracemalloc.start()
    try:
        assert advance(cursor, segments, {"answer": longer})[1] == "x"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000  # the text is a million characters: nothing of that size was made
