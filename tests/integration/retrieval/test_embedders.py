"""Embedders over real HTTP, against a fake engine: what they send, and every way it can fail."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from master.retrieval.embedders import engine as engine_module
from master.retrieval.embedders.openai import to_base64
from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import Embedder, EmbeddingError
from master.retrieval.embedders.registry import make_embedder
from master.retrieval.rerankers.protocol import RerankError
from master.retrieval.rerankers.registry import make_reranker
from millrace.chaos.engine import Reply, serve
from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Model, Registry
from tests.doubles.embedding_engine import EmbeddingEngine, vector_of

T, P = ErrorKind.TRANSIENT, ErrorKind.PERMANENT


@dataclass(frozen=True)
class Served:
    engine: EmbeddingEngine
    url: str
    provider: str = "embedder"

    def model(self, **fields: Any) -> Model:
        path = "/v1" if self.provider == "openai" else ""
        entry = {
            "name": "mill",
            "provider": self.provider,
            "endpoint": self.url + path,
            "capabilities": ["embedding"],
        }
        return Model.model_validate(entry | fields)


class Switch:
    """One server for all tests, each with an engine of its own."""

    engine = EmbeddingEngine()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.engine(scope, receive, send)


@pytest.fixture(scope="module")
def switch() -> Iterator[tuple[Switch, str]]:
    switch = Switch()
    with serve(switch) as url:
        yield switch, url


@pytest.fixture
def engine(switch: tuple[Switch, str]) -> Served:
    made, url = switch
    made.engine = EmbeddingEngine()
    return Served(made.engine, url)


@pytest.fixture(params=["ollama", "openai", "embedder"])
def served(request: pytest.FixtureRequest, engine: Served) -> Served:
    return Served(engine.engine, engine.url, request.param)


@asynccontextmanager
async def embedder_of(model: Model) -> AsyncGenerator[Embedder, None]:
    embedder = make_embedder(model)
    try:
        yield embedder
    finally:
        await embedder.aclose()


async def error_of(model: Model, texts: list[str] | None = None) -> EmbeddingError:
    async with embedder_of(model) as embedder:
        with pytest.raises(EmbeddingError) as caught:
            await embedder.embed(texts or ["a mill"])
    return caught.value


async def test_every_text_gets_its_vector_in_order(served: Served) -> None:
    texts = ["the mill", "the wheel turns", "水车", "the mill"]
    async with embedder_of(served.model()) as embedder:
        assert await embedder.embed(texts) == [vector_of(text) for text in texts]
        assert await embedder.embed([]) == []
        assert await embedder.check() == 16


async def test_many_texts_are_sent_in_bounded_calls(served: Served) -> None:
    texts = [f"text {n}" for n in range(7)]
    async with embedder_of(served.model(options={"batch_size": 3})) as embedder:
        assert await embedder.embed(texts) == [vector_of(text) for text in texts]

    assert served.engine.batches == [texts[:3], texts[3:6], texts[6:]]


@pytest.mark.parametrize(
    ("status", "said", "kind", "code"),
    [
        (400, "the input length exceeds the context length", P, "context_length_exceeded"),
        (400, "This model's maximum context length is 512 tokens", P, "context_length_exceeded"),
        (413, "`inputs` must have less than 512 tokens", P, "context_length_exceeded"),
        (500, "input is too large to process", P, "context_length_exceeded"),
        (404, 'model "mill" not found, try pulling it first', P, "model_not_found"),
        (404, "", P, "model_not_found"),
        (401, "no", P, "engine_unauthorized"),
        (403, "no", P, "engine_unauthorized"),
        (400, "bad", P, "bad_request"),
        (422, "bad", P, "bad_request"),
        (429, "slow down", T, "engine_busy"),
        (500, "bug", T, "engine_error"),
        (502, "<html>", T, "engine_unreachable"),
        (503, "loading", T, "engine_busy"),
        (504, "", T, "engine_timeout"),
    ],
)
async def test_a_refusal_is_judged_by_its_words_then_by_its_status(
    served: Served, status: int, said: str, kind: ErrorKind, code: str
) -> None:
    served.engine.reply = Reply(status=status, error=said)

    error = await error_of(served.model())

    assert (error.kind, error.code) == (kind, code)
    assert said in error.message


@pytest.mark.parametrize(
    "vectors",
    [
        [],
        [[1.0], [1.0]],
        [[]],
        [[0.0, 0.0]],
        [[float("nan"), 1.0]],
        [[float("inf"), 1.0]],
        [["1", "2"]],
        [None],
        "text",
    ],
    ids=["none", "too-many", "empty", "zero", "nan", "inf", "words", "null", "a-string"],
)
async def test_unusable_vectors_are_a_permanent_error(served: Served, vectors: Any) -> None:
    served.engine.vectors = vectors

    error = await error_of(served.model())

    assert (error.kind, error.code) == (P, "bad_embedding")


@pytest.mark.parametrize("answer", [{}, {"data": 1}, {"data": [{}]}, {"embeddings": {"a": 1}}])
async def test_an_answer_of_another_shape_is_a_permanent_error(
    served: Served, answer: dict[str, Any]
) -> None:
    served.engine.answer_with = answer

    assert (await error_of(served.model())).code == "bad_embedding"


async def test_no_engine_is_transient_with_a_remedy(served: Served) -> None:
    error = await error_of(served.model(endpoint="http://127.0.0.1:9"))

    assert (error.kind, error.code) == (T, "engine_unreachable")
    assert "http://127.0.0.1:9" in error.message
    assert "start it" in error.message


@pytest.mark.parametrize("endpoint", ["nonsense://x", "http://", "//x", "http://x:port"])
async def test_a_wrong_address_is_permanent(served: Served, endpoint: str) -> None:
    with pytest.raises(EmbeddingError) as caught:
        async with embedder_of(served.model(endpoint=endpoint)) as embedder:
            await embedder.embed(["a"])

    assert (caught.value.kind, caught.value.code) == (P, "engine_misconfigured")


async def test_silence_is_a_timeout(served: Served) -> None:
    with serve(_silent) as url:
        path = "/v1" if served.provider == "openai" else ""
        error = await error_of(served.model(endpoint=url + path, first_token_seconds=0.05))

    assert (error.kind, error.code) == (T, "engine_timeout")


async def _silent(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def test_the_key_is_sent_from_the_environment(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KEY", "secret")
    async with embedder_of(served.model(api_key_env="ENGINE_KEY")) as embedder:
        await embedder.embed(["a"])

    assert served.engine.calls[0].headers["authorization"] == "Bearer secret"


async def test_bad_options_are_named(served: Served) -> None:
    with pytest.raises(
        EmbeddingError, match=r"mill: options\.batch_size: .*greater than"
    ) as caught:
        make_embedder(served.model(options={"batch_size": 0}))

    assert caught.value.kind is P


# --- one engine each ------------------------------------------------------------------------------


async def test_ollama_is_told_not_to_cut_texts(engine: Served) -> None:
    model = Served(engine.engine, engine.url, "ollama").model(
        engine_model="mill", keep_alive="60", options={"num_ctx": 512}
    )
    async with embedder_of(model) as embedder:
        await embedder.embed(["a"])

    call = engine.engine.calls[0]
    assert call.path == "/api/embed"
    assert call.body == {
        "model": "mill",
        "input": ["a"],
        "truncate": False,
        "keep_alive": 60,
        "options": {"num_ctx": 512},
    }


async def test_a_model_that_ollama_lacks_comes_with_the_command_that_gets_it(
    engine: Served,
) -> None:
    model = Served(engine.engine, engine.url, "ollama").model(engine_model="bge-m3")

    error = await error_of(model)

    assert error.kind is P
    assert "`ollama pull bge-m3`" in error.message


@pytest.mark.parametrize("template", ["{host}", "http://{host}"])
async def test_ollamas_own_variable_is_understood(
    engine: Served, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", template.format(host=engine.url.removeprefix("http://")))
    model = Served(engine.engine, engine.url, "ollama").model(endpoint=None)
    async with embedder_of(model) as embedder:
        assert await embedder.check() == 16


async def test_openai_may_answer_in_base64_and_gets_the_options(engine: Served) -> None:
    engine.engine.vectors = [to_base64([0.5, -0.25])]
    model = Served(engine.engine, engine.url, "openai").model(
        options={"dimensions": 2, "encoding_format": "base64"}
    )
    async with embedder_of(model) as embedder:
        assert await embedder.embed(["a"]) == [[0.5, -0.25]]

    assert engine.engine.calls[0].path == "/v1/embeddings"
    assert engine.engine.calls[0].body == {
        "model": "mill",
        "input": ["a"],
        "dimensions": 2,
        "encoding_format": "base64",
    }


async def test_broken_base64_is_a_permanent_error(engine: Served) -> None:
    engine.engine.vectors = ["AAA"]

    error = await error_of(Served(engine.engine, engine.url, "openai").model())

    assert error.code == "bad_embedding"


async def test_an_embedder_says_how_much_its_model_reads(engine: Served) -> None:
    async with embedder_of(engine.model()) as embedder:
        assert embedder.max_words == 6144
        await embedder.check()

        assert embedder.max_words == 300


# --- the table of errors --------------------------------------------------------------------------


def test_every_exception_of_the_http_library_is_mapped() -> None:
    raised = [
        kind
        for kind in vars(httpx2).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not _own_misuse(kind)
    ]
    assert len(raised) > 15
    for kind in raised:
        assert any(base in engine_module.ERRORS for base in kind.__mro__), kind


def _own_misuse(kind: type[Exception]) -> bool:
    """Reading a body twice and the like, which no answer can cause."""
    return issubclass(kind, httpx2.StreamError | httpx2.CookieConflict)


# --- one for each model ---------------------------------------------------------------------------


def a_registry(*models: dict[str, Any]) -> Registry:
    chat = {"name": "chat", "provider": "scripted"}
    return Registry.model_validate({"models": [chat, *models]})


def an_entry(url: str, **fields: Any) -> dict[str, Any]:
    entry = {"name": "mill", "provider": "embedder", "capabilities": ["embedding"]}
    return {**entry, "endpoint": url, **fields}


async def test_an_embedder_is_made_once_for_each_model(engine: Served) -> None:
    registry = a_registry(an_entry(engine.url), an_entry(engine.url, name="other"))
    pool = Embedders(lambda: registry)

    assert pool.get("mill") is pool.get("mill")
    assert pool.get("mill") is not pool.get("other")
    await pool.aclose()


async def test_a_changed_entry_makes_a_new_embedder_and_the_old_one_still_answers(
    engine: Served,
) -> None:
    registries = [a_registry(an_entry("http://127.0.0.1:9")), a_registry(an_entry(engine.url))]
    pool = Embedders(lambda: registries[-1])
    before = pool.get("mill")
    registries.append(a_registry(an_entry(engine.url, context_length=4096)))
    after = pool.get("mill")

    assert after is not before
    found = await asyncio.gather(before.embed(["a"]), after.embed(["a"]))
    assert found[0] == found[1]
    await pool.aclose()


@pytest.mark.parametrize("name", ["chat", "nothing", ""])
async def test_what_does_not_embed_is_not_found(name: str) -> None:
    pool = Embedders(a_registry)

    with pytest.raises(EmbeddingError, match="no embedding model") as caught:
        pool.get(name)

    assert (caught.value.kind, caught.value.code) == (P, "model_not_found")
    await pool.aclose()


def test_a_provider_that_only_chats_cannot_embed() -> None:
    model = Model.model_validate(
        {"name": "m", "provider": "scripted", "capabilities": ["embedding"]}
    )
    with pytest.raises(EmbeddingError, match="scripted does not embed"):
        make_embedder(model)


# --- a reranker behind HTTP -----------------------------------------------------------------------


async def test_a_remote_reranker_scores_in_the_order_of_the_texts(engine: Served) -> None:
    reranker = make_reranker(f"{engine.url}/v1/rerank#bge", "secret")
    texts = ["no", "the red mill", "mill", *(f"x{n}" for n in range(100))]

    scores = await reranker.score("red mill", texts)

    assert scores[:3] == [0, 2 / 3, 1 / 2]
    assert len(scores) == 103
    assert [len(call.body["documents"]) for call in engine.engine.calls] == [64, 39]
    assert engine.engine.calls[0].body["model"] == "bge"
    assert engine.engine.calls[0].headers["authorization"] == "Bearer secret"
    await reranker.aclose()


async def test_logits_are_brought_to_0_to_1_in_their_order(engine: Served) -> None:
    results = [{"index": 1, "relevance_score": -8.5}, {"index": 0, "relevance_score": 900}]
    engine.engine.answer_with = {"results": results}
    reranker = make_reranker(engine.url)

    best, worst = await reranker.score("q", ["a", "b"])

    assert 0 < worst < 0.01
    assert 0.99 < best <= 1
    await reranker.aclose()


@pytest.mark.parametrize(
    "results",
    [
        None,
        [],
        [{"index": 0}],
        [{"index": 0, "relevance_score": "much"}],
        [{"index": 0, "relevance_score": None}],
        [{"index": 0, "relevance_score": float("nan")}],
        [{"index": 5, "relevance_score": 1}],
        [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": 1}],
    ],
    ids=["null", "none", "no-score", "word", "null-score", "nan", "index", "too-many"],
)
async def test_unusable_scores_are_a_permanent_error(engine: Served, results: Any) -> None:
    engine.engine.answer_with = {"results": results}
    reranker = make_reranker(engine.url)

    with pytest.raises(RerankError) as caught:
        await reranker.score("q", ["a"])

    assert (caught.value.kind, caught.value.code) == (P, "bad_score")
    await reranker.aclose()


async def test_a_reranker_that_is_down_is_a_transient_error() -> None:
    reranker = make_reranker("http://127.0.0.1:9")

    with pytest.raises(RerankError) as caught:
        await reranker.score("q", ["a"])

    assert (caught.value.kind, caught.value.code) == (T, "engine_unreachable")
    await reranker.aclose()
