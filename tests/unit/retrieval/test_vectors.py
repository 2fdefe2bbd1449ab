import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.retrieval.embedders.batches import in_batches, words_of
from master.retrieval.embedders.openai import from_base64, to_base64, vectors_in_order
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.embedders.vectors import checked
from queue_schemas.messages import ErrorKind


def test_good_vectors_come_back_as_they_are() -> None:
    vectors = [[0.6, 0.8], [1, 0]]

    assert checked(vectors, 2, 2) == vectors


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (None, "no list"),
        ({"0": [1.0]}, "no list"),
        ([], "0 vectors"),
        ([[1.0, 0.0]], "1 vectors"),
        ([[1.0, 0.0]] * 3, "3 vectors"),
        ([[1.0, 0.0], []], "empty"),
        ([[], []], "empty"),
        ([None, [1.0]], "not a list of numbers"),
        ([[1.0, 0.0], None], "not a list of numbers"),
        ([[1.0, 0.0], "ab"], "not a list of numbers"),
        ([[1.0, 0.0], [1.0, "0"]], "not a list of numbers"),
        ([[1.0, 0.0], [1.0, True]], "not a list of numbers"),
        ([[1.0, 0.0], [1.0, None]], "not a list of numbers"),
        ([[1.0, 0.0], [1.0]], "1 dimensions instead of 2"),
        ([[1.0, 0.0], [1.0, 0.0, 0.0]], "3 dimensions instead of 2"),
        ([[1.0, 0.0], [1.0, math.nan]], "not finite"),
        ([[1.0, 0.0], [1.0, math.inf]], "not finite"),
        ([[1.0, 0.0], [-math.inf, 1.0]], "not finite"),
        ([[1.0, 0.0], [1e308, 1.7e308]], "not finite"),
        ([[1.0, 0.0], [10**400, 1.0]], "not finite"),
        ([[1.0, 0.0], [0.0, 0.0]], "without a direction"),
        ([[1.0, 0.0], [1e30, 0.0]], "without a direction"),
        ([[1.0, 0.0], [1e-30, 0.0]], "without a direction"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(vectors: object, reason: str) -> None:
    with pytest.raises(EmbeddingError, match=reason) as caught:
        checked(vectors, 2)

    assert (caught.value.kind, caught.value.code) == (ErrorKind.PERMANENT, "bad_embedding")


def test_a_dimension_that_was_fixed_before_must_be_kept() -> None:
    with pytest.raises(EmbeddingError, match="2 dimensions instead of 3"):
        checked([[1.0, 0.0]], 1, 3)


async def test_many_texts_go_in_batches_and_come_back_in_order() -> None:
    sizes: list[int] = []

    async def embed(texts: object) -> object:
        assert isinstance(texts, list)
        sizes.append(len(texts))
        return [[float(text), 1.0] for text in texts]

    vectors = await in_batches([str(n) for n in range(7)], 3, embed)

    assert [vector[0] for vector in vectors] == [0, 1, 2, 3, 4, 5, 6]
    assert sizes == [3, 3, 1]
    assert await in_batches([], 3, embed) == []


async def test_batches_of_different_dimensions_are_refused() -> None:
    async def embed(texts: object) -> object:
        return [[1.0] * (1 if texts == ["a"] else 2)]

    with pytest.raises(EmbeddingError, match="2 dimensions instead of 1"):
        await in_batches(["a", "b"], 1, embed)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_base64_is_little_endian_float32_and_loses_nothing(vector: list[float]) -> None:
    assert from_base64(to_base64(vector)) == vector


def test_base64_is_what_openai_sends() -> None:
    assert to_base64([1.0, -2.0]) == "AACAPwAAAMA="


@pytest.mark.parametrize("text", ["!", "AAA=", "AACAPwA="])
def test_base64_that_is_cut_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes"):
        from_base64(text)


@pytest.mark.parametrize("indexes", [[0, 0], [1, 2], [0, 2], [-1, 0], ["0", "1"]])
def test_indexes_must_name_every_text_once(indexes: list[object]) -> None:
    items = [{"index": index, "embedding": [1.0]} for index in indexes]

    with pytest.raises(ValueError, match="0 to n-1"):
        vectors_in_order({"data": items})


def test_a_word_is_more_than_a_token() -> None:
    assert words_of(256) == 192
    assert words_of(1) == 1
