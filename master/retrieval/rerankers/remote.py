"""An engine with `/v1/rerank`: vLLM, llama.cpp, LocalAI, Jina, or `millrace embedder`.

The setting is its URL, with or without `/v1/rerank`; a model's name may stand behind a `#`.
"""

import math
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import JsonValue

from master.retrieval.embedders.engine import Engine
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.rerankers.protocol import RerankError
from queue_schemas.messages import ErrorKind

BATCH_SIZE: Final = 64

_SECONDS = 30.0


class RemoteReranker:
    """One engine and one of its models."""

    def __init__(self, url: str, model: str | None, key: str | None) -> None:
        self.model = model or urlsplit(url).hostname or url
        self._asked_model = model
        try:
            self._engine = Engine(url, key, _SECONDS)
        except EmbeddingError as error:
            raise ValueError(f"{url} is no address of a reranker: {error.message}") from error

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Score every text, as probabilities."""
        scores: list[float] = []
        for start in range(0, len(texts), BATCH_SIZE):
            scores += await self._batch(query, texts[start : start + BATCH_SIZE])
        # Jina and vLLM give 0 to 1, llama.cpp gives logits; a sigmoid keeps their order.
        return scores if all(0 <= s <= 1 for s in scores) else [_sigmoid(s) for s in scores]

    async def aclose(self) -> None:
        """Close connections."""
        await self._engine.aclose()

    async def _batch(self, query: str, texts: Sequence[str]) -> list[float]:
        body: dict[str, JsonValue]
        body = {"query": query, "documents": list(texts), "top_n": len(texts)}
        if self._asked_model:
            body["model"] = self._asked_model
        try:
            answer = await self._engine.post("/v1/rerank", body)
        except EmbeddingError as error:
            raise RerankError(error.kind, error.code, error.message) from error
        try:
            return _scores(answer, len(texts))
        except (KeyError, TypeError, ValueError) as error:
            message = f"the engine's scores cannot be used: {type(error).__name__}: {error}"
            raise RerankError(ErrorKind.PERMANENT, "bad_score", message) from error


def make(setting: str, key: str | None = None) -> RemoteReranker:
    """The reranker of a setting."""
    url, _, model = setting.partition("#")
    return RemoteReranker(
        url.rstrip("/").removesuffix("/rerank").removesuffix("/v1"),
        model or None,
        key,
    )


def _scores(answer: Any, count: int) -> list[float]:
    found = {item["index"]: float(item["relevance_score"]) for item in answer["results"]}
    if sorted(found) != list(range(count)):
        raise ValueError(f"{count} texts were sent, and the indexes {sorted(found)} came back")
    if not all(map(math.isfinite, found.values())):
        raise ValueError("they are not finite")
    return [found[index] for index in range(count)]


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))
