"""What an embedder counts."""

from collections.abc import Sequence

import httpx2

from master.embedder.app import create_app
from master.embedder.loaded import Loaded
from master.embedder.metrics import registry
from master.embedder.settings import EmbedderSettings
from master.retrieval.embedders.engine import BUSY, failure
from master.retrieval.embedders.protocol import Vector
from master.retrieval.rerankers.cross_encoder import CrossEncoder
from master.retrieval.rerankers.protocol import RerankError
from queue_schemas.messages import ErrorKind


class Doubled(Loaded):
    """Its vectors come without a model, and some texts are too much for it."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if "busy" in texts:
            raise failure(BUSY, "too much waits")
        if "broken" in texts:
            raise ZeroDivisionError
        return [[0.5, 0.5] for _ in texts]


class Judge(CrossEncoder):
    """Scores come without a model, and one query is too much for it."""

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        if query == "broken":
            raise RerankError(ErrorKind.PERMANENT, "model_failed", "it is broken")
        return [1.0 for _ in texts]


def counted(call: str) -> dict[str, float]:
    outcomes = ("answered", "loading", "busy", "refused", "failed")
    name = "millrace_embedder_requests_total"
    labels = [{"call": call, "outcome": outcome} for outcome in outcomes]
    found = {each["outcome"]: registry.get_sample_value(name, each) or 0.0 for each in labels}
    found["texts"] = registry.get_sample_value("millrace_embedder_texts_total") or 0.0
    return found


def since(before: dict[str, float], call: str) -> dict[str, float]:
    return {name: value - before[name] for name, value in counted(call).items()}


async def test_requests_are_counted_by_what_became_of_them() -> None:
    loaded = Doubled(EmbedderSettings(max_texts=3))
    transport = httpx2.ASGITransport(app=create_app(loaded), raise_app_exceptions=False)
    before = counted("embed")
    async with httpx2.AsyncClient(transport=transport, base_url="http://embedder") as client:
        await client.post("/embed", json={"text": "a"})
        early = (await client.get("/metrics")).text
        loaded.dimension = 2
        for texts in (["a", "b", "c"], ["a"], ["busy"], ["broken"], ["a"] * 4):
            await client.post("/embed/batch", json={"texts": texts})
        await client.post("/embed/batch", json={"texts": "no list"})
        strange = {"Accept": "application/openmetrics-text;version=x"}
        late = await client.get("/metrics", headers=strange)
    new = since(before, "embed")
    wanted = {"answered": 2, "loading": 1, "busy": 1, "refused": 1, "failed": 1, "texts": 4}
    assert new == wanted, "what cannot be read is no request for vectors"
    assert "millrace_embedder_ready 0.0" in early
    assert late.status_code == 200
    assert "millrace_embedder_ready 1.0" in late.text


async def test_reranking_is_counted_apart() -> None:
    loaded = Doubled(EmbedderSettings(max_texts=3, cross_encoder="judge"))
    loaded.reranker = Judge("judge")
    transport = httpx2.ASGITransport(app=create_app(loaded), raise_app_exceptions=False)
    before, vectors = counted("rerank"), counted("embed")
    took = "millrace_embedder_seconds_count"
    timed = registry.get_sample_value(took, {"call": "rerank"}) or 0.0
    async with httpx2.AsyncClient(transport=transport, base_url="http://embedder") as client:
        asked = {"query": "mill", "documents": ["a", "b"]}
        statuses = [(await client.post("/v1/rerank", json=asked)).status_code]
        loaded.dimension = 2
        for more in (
            {},
            {"query": "broken"},
            {"documents": ["x" * (loaded.settings.max_characters + 1)]},
            {"model": "another"},
            {"documents": "no list"},
        ):
            answer = await client.post("/v1/rerank", json=asked | more)
            statuses.append(answer.status_code)
    assert statuses == [503, 200, 500, 413, 404, 400]
    wanted = {"answered": 1, "loading": 1, "busy": 0, "refused": 1, "failed": 1, "texts": 0}
    assert since(before, "rerank") == wanted, "what names another model was for somebody else"
    assert not any(since(vectors, "embed").values())
    assert registry.get_sample_value(took, {"call": "rerank"}) == timed + 1
