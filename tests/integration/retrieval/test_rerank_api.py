"""`/v1/rerank` of a running master."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx2
import pytest

from millrace.chaos.engine import Reply, serve
from tests.doubles.embedding_engine import EmbeddingEngine
from tests.integration.master.mill import Mill, a_script, installation

DOCUMENTS = ["no word of it", "the red mill", {"text": "mill"}, "a mill that is red, and more"]


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill]:
    async with installation(migrated_url, a_script()) as made:
        yield made


async def post(mill: Mill, **fields: Any) -> httpx2.Response:
    body = {"query": "red mill", "documents": DOCUMENTS} | fields
    return await mill.http.post("/v1/rerank", json=body)


async def test_the_best_documents_come_first(mill: Mill) -> None:
    answer = await post(mill)

    assert answer.status_code == 200
    found = answer.json()
    assert found["id"].startswith("rerank-")
    assert found["model"] == "millrace/lexical"
    assert [entry["index"] for entry in found["results"]] == [1, 2, 3, 0]
    assert [entry["relevance_score"] for entry in found["results"]] == [2 / 3, 1 / 2, 2 / 7, 0]
    assert all("document" not in entry for entry in found["results"])
    assert found["usage"]["total_tokens"] > 0


async def test_documents_come_back_when_asked_for(mill: Mill) -> None:
    answer = await post(mill, return_documents=True, top_n=2, model="millrace/lexical")

    results = answer.json()["results"]
    assert [entry["document"] for entry in results] == [{"text": "the red mill"}, {"text": "mill"}]


async def test_more_than_there_are_gives_all_and_equals_keep_their_order(mill: Mill) -> None:
    answer = await post(mill, documents=["x", "y", "z"], top_n=99)

    assert [entry["index"] for entry in answer.json()["results"]] == [0, 1, 2]


async def test_parameters_of_other_dialects_have_no_effect(mill: Mill) -> None:
    answer = await post(mill, max_chunks_per_doc=3, truncation=True, rank_fields=["text"])

    assert answer.status_code == 200


WRONG_FIELDS: list[tuple[str, Any, str]] = [
    ("query", "", "query"),
    ("query", None, "query"),
    ("query", 1, "query"),
    ("query", "q" * 100_001, "query"),
    ("documents", [], "documents"),
    ("documents", "a", "documents"),
    ("documents", None, "documents"),
    ("documents", ["a", 1], "documents[1]"),
    ("documents", ["a", None], "documents[1]"),
    ("documents", [{"title": "a"}], "documents[0]"),
    ("documents", [{"text": 1}], "documents[0]"),
    ("documents", ["a"] * 1001, "documents"),
    ("top_n", 0, "top_n"),
    ("top_n", -1, "top_n"),
    ("top_n", "2", "top_n"),
    ("return_documents", "yes", "return_documents"),
    ("model", "", "model"),
]


async def test_a_wrong_field_is_a_400_with_its_name(mill: Mill) -> None:
    for field, value, param in WRONG_FIELDS:
        answer = await post(mill, **{field: value})

        assert answer.status_code == 400, (field, value)
        assert answer.json()["error"]["param"] == param, (field, value)


async def test_an_unknown_model_is_not_found_with_those_that_exist(mill: Mill) -> None:
    answer = await post(mill, model="bge")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "available: millrace/lexical" in answer.json()["error"]["message"]


async def test_a_key_is_needed(mill: Mill) -> None:
    answer = await mill.http.post(
        "/v1/rerank",
        json={"query": "a", "documents": ["a"]},
        headers={"Authorization": "Bearer mr-wrong"},
    )

    assert answer.status_code == 401


# --- a reranker behind HTTP -----------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[tuple[EmbeddingEngine, str]]:
    engine = EmbeddingEngine()
    with serve(engine) as url:
        yield engine, url


@pytest.fixture
async def remote(migrated_url: str, engine: tuple[EmbeddingEngine, str]) -> AsyncGenerator[Mill]:
    setting = f"{engine[1]}#bge"
    async with installation(migrated_url, a_script(), reranker=setting) as made:
        yield made


async def test_the_setting_names_another_reranker(
    remote: Mill, engine: tuple[EmbeddingEngine, str]
) -> None:
    for model in ({}, {"model": "bge"}):
        answer = await post(remote, **model)

        assert answer.json()["model"] == "bge"
        assert [entry["index"] for entry in answer.json()["results"]] == [1, 2, 3, 0]
    assert [call.path for call in engine[0].calls] == ["/v1/rerank"] * 2


async def test_the_lexical_one_can_still_be_asked_for(
    remote: Mill, engine: tuple[EmbeddingEngine, str]
) -> None:
    answer = await post(remote, model="millrace/lexical")

    assert answer.json()["model"] == "millrace/lexical"
    assert engine[0].calls == []


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(status=503, error="at 10.0.0.7"), 503, "service_unavailable"),
        (Reply(status=400, error="at 10.0.0.7"), 502, "bad_request"),
    ],
)
async def test_a_reranker_that_fails_is_an_answer_without_its_own_words(
    remote: Mill, engine: tuple[EmbeddingEngine, str], reply: Reply, status: int, code: str
) -> None:
    engine[0].reply = reply

    answer = await post(remote)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "10.0.0.7" not in answer.text
