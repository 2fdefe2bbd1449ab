"""Putting a part together from chunks that may be lost, repeated, late or regenerated."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.reassembly import PartStream, Verdict
from queue_schemas.messages import TokenChunk

FIRST, SECOND = uuid4(), uuid4()


def chunk(
    text: str,
    offset: int,
    execution: UUID = FIRST,
    attempt: int = 1,
    delivery: int = 0,
    thought: int = 0,
) -> TokenChunk:
    return TokenChunk(
        request=uuid4(),
        subtask=uuid4(),
        attempt=attempt,
        execution=execution,
        delivery=delivery,
        offset=offset,
        thought=thought,
        text=text,
    )


def test_chunks_in_order_make_the_text() -> None:
    part = PartStream()
    assert part.take(chunk("Hel", 0)) is Verdict.NEWS
    assert part.take(chunk("lo", 3)) is Verdict.NEWS
    assert part.text == "Hello"


def test_a_repeated_chunk_adds_nothing() -> None:
    part = PartStream()
    part.take(chunk("Hello", 0))
    assert part.take(chunk("Hello", 0)) is Verdict.NOTHING_NEW
    assert part.take(chunk("lo you", 3)) is Verdict.NEWS
    assert part.text == "Hello you"


def test_a_missing_chunk_shows_as_a_gap_and_is_not_skipped() -> None:
    part = PartStream()
    part.take(chunk("Hel", 0))
    assert part.take(chunk("you", 6)) is Verdict.GAP
    assert part.text == "Hel"


def test_text_waits_for_the_thoughts_that_go_before_it() -> None:
    part = PartStream()
    part.think(chunk("Water f", 0))
    assert part.take(chunk("It turns", 0, thought=12)) is Verdict.GAP
    assert part.text == ""
    part.think(chunk("Water falls.", 0))
    assert part.take(chunk("It turns", 0, thought=12)) is Verdict.NEWS
    assert (part.reasoning, part.text) == ("Water falls.", "It turns")


def test_a_redelivery_that_agrees_is_skipped_until_it_says_something_new() -> None:
    part = PartStream()
    part.take(chunk("The mill", 0))
    part.shown = 8
    assert part.take(chunk("The ", 0, SECOND, delivery=1)) is Verdict.NOTHING_NEW
    assert part.take(chunk("mill turns", 4, SECOND, delivery=1)) is Verdict.NEWS
    assert part.text == "The mill turns"


def test_a_redelivery_that_contradicts_shown_text_has_diverged() -> None:
    part = PartStream()
    part.take(chunk("The mill", 0))
    part.shown = 8
    assert part.take(chunk("A wheel", 0, SECOND, delivery=1)) is Verdict.DIVERGED
    assert part.text == "The mill"


def test_an_execution_that_has_diverged_is_not_listened_to_any_more() -> None:
    part = PartStream()
    part.take(chunk("The mill", 0))
    part.shown = 8
    assert part.take(chunk("A wheel!", 0, SECOND, delivery=1)) is Verdict.DIVERGED
    assert part.take(chunk(" turns", 8, SECOND, delivery=1)) is Verdict.STALE
    assert part.take(chunk(" grinds", 8, uuid4(), attempt=2)) is Verdict.NEWS
    assert part.text == "The mill grinds"


def test_a_redelivery_may_differ_where_nothing_was_shown() -> None:
    part = PartStream()
    part.take(chunk("The mill", 0))
    part.shown = 4
    assert part.take(chunk("The wheel", 0, SECOND, delivery=1)) is Verdict.NEWS
    assert part.text == "The wheel"


@pytest.mark.parametrize(("attempt", "delivery"), [(1, 0), (1, 1)])
def test_the_superseded_execution_is_not_listened_to(attempt: int, delivery: int) -> None:
    part = PartStream()
    part.take(chunk("old", 0, FIRST, attempt=1, delivery=1))
    part.take(chunk("new", 0, SECOND, attempt=2, delivery=0))
    assert part.take(chunk("er", 3, FIRST, attempt, delivery)) is Verdict.STALE


def test_between_equals_the_first_claim_stands() -> None:
    part = PartStream()
    part.take(chunk("one", 0, FIRST))
    assert part.take(chunk("two", 0, SECOND)) is Verdict.STALE


def test_the_text_of_record_fills_what_was_lost() -> None:
    part = PartStream()
    part.take(chunk("Hel", 0))
    part.shown = 3
    assert part.finish("Hello you")
    assert part.text == "Hello you"


def test_a_text_of_record_that_contradicts_shown_text_does_not_replace_it() -> None:
    part = PartStream()
    part.take(chunk("Hello", 0))
    part.shown = 5
    assert not part.finish("Goodbye")
    assert part.text == "Hello"
    assert part.done


@given(
    st.text(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 20)), max_size=40),
)
def test_whatever_arrives_the_text_is_always_a_prefix(
    text: str, pieces: list[tuple[int, int]]
) -> None:
    part = PartStream()
    for start, length in pieces:
        before = part.text
        verdict = part.take(chunk(text[start : start + length], start))
        assert text.startswith(part.text)
        assert part.text.startswith(before)
        assert (verdict is Verdict.NEWS) == (part.text != before)


def test_thoughts_that_are_missing_show_as_a_gap_and_are_not_skipped() -> None:
    part = PartStream()
    assert part.think(chunk("Let ", 0)) is Verdict.NEWS
    assert part.think(chunk("see.", 7)) is Verdict.GAP
    assert part.reasoning == "Let "
    assert part.think(chunk("Let me see.", 0)) is Verdict.NEWS
    assert part.think(chunk("me ", 4)) is Verdict.NOTHING_NEW
    assert part.reasoning == "Let me see."


def test_a_second_execution_repeats_no_thought_that_was_shown() -> None:
    part = PartStream()
    part.think(chunk("Let me", 0))
    assert part.think(chunk("Hmm. ", 0, SECOND, delivery=1)) is Verdict.NOTHING_NEW
    assert part.think(chunk("Well.", 5, SECOND, delivery=1)) is Verdict.NEWS
    assert part.think(chunk(" see", 6)) is Verdict.STALE
    assert part.reasoning == "Let meell."


def test_the_thoughts_of_record_fill_what_was_lost() -> None:
    part = PartStream()
    part.think(chunk("Let ", 0))
    part.finish("text", "Let me see.")
    assert part.reasoning == "Let me see."
    other = PartStream()
    other.think(chunk("Let ", 0))
    other.finish("text", "Something else")
    assert other.reasoning == "Let ", "what was shown stays"
