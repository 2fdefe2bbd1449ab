"""Continuing after shown text, with engines that repeat it and engines that do not."""

from hypothesis import given
from hypothesis import strategies as st

from worker.providers.prefill import SHORTEST_ECHO, EchoFilter

LONG = st.text(min_size=SHORTEST_ECHO)


def through(shown: str, pieces: list[str]) -> str:
    echo = EchoFilter(shown)
    return "".join(echo.feed(piece) for piece in pieces) + echo.rest()


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]


SIZES = st.lists(st.integers(min_value=0, max_value=9))


@given(shown=LONG, news=st.text(min_size=1), sizes=SIZES)
def test_an_echo_is_dropped_however_it_arrives(shown: str, news: str, sizes: list[int]) -> None:
    assert through(shown, cut(shown + news, sizes)) == news


@given(shown=st.text(), news=st.text(), sizes=SIZES)
def test_what_is_no_echo_arrives_whole(shown: str, news: str, sizes: list[int]) -> None:
    if not news.startswith(shown[:1]) or not shown:
        assert through(shown, cut(news, sizes)) == news


@given(shown=LONG, sizes=SIZES)
def test_nothing_but_the_echo_is_nothing(shown: str, sizes: list[int]) -> None:
    assert through(shown, cut(shown, sizes)) == ""


def test_a_short_continuation_that_begins_like_the_shown_text_is_kept() -> None:
    assert through("Yes, the mill turns.", ["Yes"]) == "Yes"


def test_a_short_shown_text_is_never_taken_for_an_echo() -> None:
    assert through("ha", ["ha", " ha"]) == "ha ha"
