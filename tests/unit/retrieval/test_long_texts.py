import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.retrieval.embedders.engine import FAULT, TOO_LONG, failure
from master.retrieval.embedders.long_texts import (
    beginning,
    embed_all,
    embed_beginning,
    halves,
    joined,
)
from master.retrieval.embedders.protocol import EmbeddingError, Vector
from tests.doubles.embedding_engine import vector_of

CODES = " ".join(f"PN-{number:05}/B.{number % 7}" for number in range(60))


class Narrow:
    """Takes so many characters at most, whatever it says of words."""

    model = "narrow"
    max_words = 400

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.calls.append(list(texts))
        if any(len(text) > self.most for text in texts):
            raise failure(TOO_LONG, "the input length exceeds the context length")
        return [vector_of(text) for text in texts]

    async def check(self) -> int:
        return 16

    async def aclose(self) -> None:
        pass


@given(st.text(min_size=2))
def test_halves_leave_out_nothing_but_space_between_them(text: str) -> None:
    left, right = halves(text)
    assert "".join((left + right).split()) == "".join(text.split())
    assert max(len(left), len(right)) <= len(text) * 3 // 4 + 1


def test_halves_end_at_a_word_where_there_is_one() -> None:
    assert halves("one two three four") == ("one two", "three four")
    assert halves("abcdef") == ("abc", "def")
    assert halves("a bcdefghijklmnop") == ("a bcdefg", "hijklmnop")


def test_a_mean_is_weighted_by_length_and_has_length_one() -> None:
    mean = joined([(30, [1.0, 0.0]), (10, [0.0, 1.0])])
    assert mean == pytest.approx([3 / math.sqrt(10), 1 / math.sqrt(10)])
    assert joined([(5, [3.0, 4.0])]) == [3.0, 4.0]
    assert joined([(2, [1.0, 0.0]), (2, [-1.0, 0.0])]) == [1.0, 0.0]


async def test_texts_that_fit_are_one_call() -> None:
    narrow = Narrow(100)
    assert await embed_all(narrow, ["a mill", "a weir"]) == [
        vector_of("a mill"),
        vector_of("a weir"),
    ]
    assert len(narrow.calls) == 1


async def test_one_text_that_is_too_long_has_the_vector_of_its_pieces() -> None:
    narrow = Narrow(200)
    vectors = await embed_all(narrow, ["a mill", CODES, "a weir"], "document: ")
    assert vectors[0] == vector_of("document: a mill")
    assert vectors[2] == vector_of("document: a weir")
    assert math.hypot(*vectors[1]) == pytest.approx(1)
    taken = [text for [text] in narrow.calls[1:] if len(text) <= 200]
    assert all(text.startswith("document: ") for text in taken)
    pieces = [text.removeprefix("document: ") for text in taken[1:-1]]
    assert " ".join(pieces) == CODES


async def test_an_engine_to_which_everything_is_too_long_is_soon_given_up() -> None:
    narrow = Narrow(5)
    with pytest.raises(EmbeddingError, match="context_length_exceeded"):
        await embed_all(narrow, [CODES])
    assert len(narrow.calls) < 15


async def test_other_refusals_are_passed_on() -> None:
    class Away(Narrow):
        async def embed(self, texts: Sequence[str]) -> list[Vector]:
            self.calls.append(list(texts))
            raise failure(FAULT, "gone")

    for asked in (embed_all(away := Away(1), ["a" * 90]), embed_beginning(away, "a" * 90)):
        with pytest.raises(EmbeddingError, match="engine_error"):
            await asked
    assert len(away.calls) == 2


def test_a_beginning_is_bounded_in_words_and_in_characters() -> None:
    assert beginning("one  two three", 2) == "one two"
    assert beginning("水" * 5000, 300) == "水" * 1800
    assert beginning("", 5) == ""


async def test_a_question_is_shortened_until_it_fits_and_four_times_at_most() -> None:
    narrow = Narrow(len(CODES) // 3)
    assert await embed_beginning(narrow, CODES) == vector_of(narrow.calls[-1][0])
    assert CODES.startswith(narrow.calls[-1][0])
    narrow = Narrow(3)
    with pytest.raises(EmbeddingError, match="context_length_exceeded"):
        await embed_beginning(narrow, CODES)
    assert len(narrow.calls) == 5
