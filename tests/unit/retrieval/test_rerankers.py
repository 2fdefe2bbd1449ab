import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.retrieval.rerankers.cross_encoder import CrossEncoder
from master.retrieval.rerankers.lexical import Lexical, jaccard, words
from master.retrieval.rerankers.registry import make_reranker
from master.retrieval.rerankers.remote import RemoteReranker


def test_words_are_lower_case_and_of_any_script() -> None:
    assert words("The mill's STRAßE, 水车 42!") == {"the", "mill", "s", "straße", "水车", "42"}


@given(st.text(), st.text())
def test_jaccard_is_symmetric_and_between_0_and_1(one: str, other: str) -> None:
    score = jaccard(words(one), words(other))

    assert 0 <= score <= 1
    assert score == jaccard(words(other), words(one))
    assert jaccard(words(one), words(one)) == (1 if words(one) else 0)


async def test_the_share_of_common_words_is_the_score() -> None:
    scores = await Lexical().score("red mill", ["A RED mill", "the red", "", "blue"])

    assert scores == [2 / 3, 1 / 3, 0, 0]


async def test_megabytes_are_scored_too() -> None:
    assert await Lexical().score("mill", ["mill " * 100_000, "x"]) == [1, 0]


async def test_a_setting_names_its_reranker() -> None:
    assert isinstance(make_reranker("lexical"), Lexical)
    cross = make_reranker("cross-encoder:/models/minilm")
    assert isinstance(cross, CrossEncoder)
    assert cross.model == "/models/minilm"
    for url in ("http://gpu:8080", "http://gpu:8080/v1", "http://gpu:8080/v1/rerank"):
        remote = make_reranker(f"{url}#bge", key="k")
        assert isinstance(remote, RemoteReranker)
        assert (remote.model, remote._engine.url) == ("bge", "http://gpu:8080")
        await remote.aclose()
    await cross.aclose()


@pytest.mark.parametrize(
    "setting", ["", "lexica", "cross-encoder:", "cross-encoder: ", "ftp://x", "http://", "http://x:y"]
)  # fmt: skip
def test_a_setting_that_names_none_is_refused_with_those_that_exist(setting: str) -> None:
    with pytest.raises(ValueError, match="is no reranker: use lexical, cross-encoder:"):
        make_reranker(setting)
