"""`/v1/embeddings` of a running master: by the OpenAI SDK, and with bodies that are wrong."""

import asyncio
import base64
import struct
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx2
import openai
import pytest

from millrace.chaos.engine import Reply, serve
from tests.doubles.embedding_engine import EmbeddingEngine, vector_of
from tests.integration.master.mill import Mill, a_script, installation


@pytest.fixture
def engine() -> Iterator[tuple[EmbeddingEngine, str]]:
    engine = EmbeddingEngine()
    with serve(engine) as url:
        yield engine, url


@pytest.fixture
async def mill(migrated_url: str, engine: tuple[EmbeddingEngine, str]) -> AsyncGenerator[Mill]:
    entry = {
        "name": "minilm",
        "engine_model": "mill",
        "provider": "ollama",
        "capabilities": ["embedding"],
        "endpoint": engine[1],
        "context_length": 256,
        "max_output_tokens": 1,
    }
    async with installation(migrated_url, a_script(), entry) as made:
        yield made


@pytest.fixture
async def sdk(mill: Mill) -> AsyncGenerator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    made = openai.AsyncOpenAI(
        base_url=f"{mill.url}/v1", api_key=mill.key, max_retries=0, http_client=http
    )
    async with made:
        yield made


async def post(mill: Mill, **fields: Any) -> httpx2.Response:
    return await mill.http.post("/v1/embeddings", json={"model": "minilm", "input": "a"} | fields)


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# --- answers --------------------------------------------------------------------------------------


async def test_the_openai_sdk_gets_vectors_for_one_text(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.embeddings.create(model="minilm", input="the mill")

    assert answer.object == "list"
    assert answer.model == "minilm"
    assert answer.data[0].embedding == pytest.approx(vector_of("the mill"), abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 2


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_the_openai_sdk_gets_vectors_for_many_texts_in_order(
    sdk: openai.AsyncOpenAI, encoding: Any
) -> None:
    texts = [f"text {n}" for n in range(130)]

    answer = await sdk.embeddings.create(model="minilm", input=texts, encoding_format=encoding)

    assert [item.index for item in answer.data] == list(range(130))
    for item, text in zip(answer.data, texts, strict=True):
        found: Any = item.embedding
        if isinstance(found, str):  # who asks for base64 gets it as it is
            found = struct.unpack("<16f", base64.b64decode(found))
        assert found == pytest.approx(vector_of(text), abs=1e-6)


async def test_numbers_are_the_default_without_the_sdk(mill: Mill) -> None:
    answer = await post(mill, input=["a"], user="someone", unknown=1)

    assert answer.status_code == 200
    assert answer.json()["data"][0]["embedding"] == vector_of("a")


async def test_the_models_own_dimension_may_be_asked_for(mill: Mill) -> None:
    assert (await post(mill, dimensions=16)).status_code == 200

    answer = await post(mill, dimensions=8)

    assert answer.status_code == 400
    assert error_of(answer)["param"] == "dimensions"
    assert "16" in error_of(answer)["message"]


# --- refusals -------------------------------------------------------------------------------------


WRONG_INPUTS: list[tuple[Any, str]] = [
    ("", "must not have an empty string"),
    ([], "must not be empty"),
    (["a", ""], "must not have an empty string; item 1"),
    ([1, 2, 3], "send text"),
    ([[1, 2], [3]], "send text"),
    ([[]], "send text"),
    (["a", 1], "send text"),
    (["a", None], "strings only; item 1"),
    (["a", True], "strings only; item 1"),
    ([{"text": "a"}], "strings only; item 0"),
    (None, "must be a string or an array of strings"),
    (7, "must be a string or an array of strings"),
    ({"text": "a"}, "must be a string or an array of strings"),
    (["a"] * 2049, "at most 2048 items"),
]


async def test_an_input_that_is_no_text_is_a_400_that_says_so(mill: Mill) -> None:
    for given, said in WRONG_INPUTS:
        answer = await post(mill, input=given)

        assert (answer.status_code, error_of(answer)["param"]) == (400, "input"), given
        assert said in error_of(answer)["message"], given


WRONG_FIELDS: list[tuple[str, Any]] = [
    ("model", ""),
    ("model", 1),
    ("encoding_format", "int8"),
    ("dimensions", 0),
    ("dimensions", "16"),
    ("dimensions", True),
    ("user", 1),
]


async def test_other_wrong_fields_are_a_400_with_their_name(mill: Mill) -> None:
    for param, value in WRONG_FIELDS:
        answer = await post(mill, **{param: value})

        assert (answer.status_code, error_of(answer)["param"]) == (400, param), (param, value)


async def test_a_missing_field_is_named(mill: Mill) -> None:
    for body, param in (({"input": "a"}, "model"), ({"model": "minilm"}, "input")):
        answer = await mill.http.post("/v1/embeddings", json=body)
        error = error_of(answer)

        assert (answer.status_code, error["param"]) == (400, param)
        assert error["code"] == "missing_required_parameter"


async def test_a_model_that_does_not_embed_is_not_found(mill: Mill) -> None:
    for model in ("nothing", "mill", "millrace/auto"):
        answer = await post(mill, model=model)

        assert answer.status_code == 404
        assert error_of(answer)["code"] == "model_not_found"
        assert "available: minilm" in error_of(answer)["message"]


async def test_a_text_longer_than_the_context_is_refused_before_the_engine_sees_it(
    mill: Mill, engine: tuple[EmbeddingEngine, str]
) -> None:
    answer = await post(mill, input=["short", "long " * 500])

    assert answer.status_code == 400
    assert error_of(answer)["code"] == "context_length_exceeded"
    assert "input[1]" in error_of(answer)["message"]
    assert engine[0].batches == []


async def test_a_key_is_needed(mill: Mill) -> None:
    headers = {"Authorization": "Bearer mr-wrong"}
    answer = await mill.http.post(
        "/v1/embeddings", json={"model": "minilm", "input": "a"}, headers=headers
    )

    assert answer.status_code == 401


WRONG_BODIES = [
    (b"", "invalid_json"),
    (b"[]", "invalid_json"),
    (b'{"model": "minilm", "input": "\\ud800"}', "invalid_unicode"),
    (b'{"model": "minilm", "input": "a", "input": "b"}', "duplicate_key"),
    (b'{"model": "minilm", "input": "a", "x": NaN}', "number_not_finite"),
]


async def test_bodies_are_read_strictly(mill: Mill) -> None:
    headers = {"Content-Type": "application/json"}
    for body, code in WRONG_BODIES:
        answer = await mill.http.post("/v1/embeddings", content=body, headers=headers)

        assert (answer.status_code, error_of(answer)["code"]) == (400, code), body


# --- engines that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "status", "code", "again"),
    [
        (Reply(status=503, error="at 10.0.0.7"), 503, "service_unavailable", "true"),
        (Reply(status=404, error="model not found at 10.0.0.7"), 502, "model_not_found", "false"),
        (Reply(status=400, error="exceeds the context length of 10.0.0.7"), 400,
         "context_length_exceeded", None),
    ],
)  # fmt: skip
async def test_an_engine_that_fails_is_an_answer_without_its_own_words(
    mill: Mill,
    engine: tuple[EmbeddingEngine, str],
    reply: Reply,
    status: int,
    code: str,
    again: str | None,
) -> None:
    engine[0].reply = reply

    answer = await post(mill)

    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert answer.headers.get("x-should-retry") == again
    assert "10.0.0.7" not in answer.text


async def test_unusable_vectors_are_never_handed_on(
    mill: Mill, engine: tuple[EmbeddingEngine, str]
) -> None:
    engine[0].vectors = [[0.0, 0.0]]

    answer = await post(mill)

    assert (answer.status_code, error_of(answer)["code"]) == (502, "bad_embedding")


async def test_many_clients_at_once_get_their_own_vectors(mill: Mill) -> None:
    texts = [f"text {n}" for n in range(40)]

    answers = await asyncio.gather(*(post(mill, input=text) for text in texts))

    found = [answer.json()["data"][0]["embedding"] for answer in answers]
    assert found == [vector_of(text) for text in texts]


async def test_the_openapi_document_has_the_route(mill: Mill) -> None:
    document = (await mill.http.get("/openapi.json")).json()

    operation = document["paths"]["/v1/embeddings"]["post"]
    assert operation["requestBody"]["required"]
    assert {"200", "400", "401", "404", "502", "503"} <= set(operation["responses"])
    assert "422" not in operation["responses"]
    assert document["components"]["schemas"]["EmbeddingsRequest"]["properties"]["input"]
