"""A fake engine that embeds and reranks, in all the languages that embedders speak.

Its vectors count words, so that texts with common words are near each other.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from master.retrieval.rerankers.lexical import jaccard, words
from millrace.chaos.engine import Call, Engine, Json, Reply, Send


def vector_of(text: str, dimension: int = 16) -> list[float]:
    """A vector of length 1; always the same for the same words."""
    counts = [0.0] * dimension
    for word in words(text) or {""}:
        counts[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % dimension] += 1
    length = math.hypot(*counts)
    return [count / length for count in counts]


class EmbeddingEngine(Engine):
    """Answers `/api/embed`, `/v1/embeddings`, `/embed/batch`, `/info` and `/v1/rerank`.

    `reply` with another status than 200 refuses; `vectors` replaces the vectors.
    """

    def __init__(self, dimension: int = 16, models: tuple[str, ...] = ("mill",)) -> None:
        super().__init__(models=models)
        self.dimension = dimension
        self.vectors: list[Any] | None = None
        self.longest: int | None = None
        """Characters of a text that is not too long."""
        self.answer_with: Json | None = None
        """Given back as it is, whatever was asked."""

    async def answer(self, call: Call, send: Send) -> None:
        reply = self.reply_to(call)
        if reply.status != 200:
            await self.respond(send, self.refusal(reply), reply.status, reply.headers)
        elif self._is_too_long(call):
            await self.respond(send, {"error": "the input exceeds the context length"}, 400)
        elif self.answer_with is not None:
            await self.respond(send, self.answer_with)
        elif call.path in {"/api/embed", "/v1/embeddings"} and self._unknown(call):
            said = f"model '{call.body.get('model')}' not found, try pulling it first"
            await self.respond(send, {"error": said}, 404)
        else:
            await self.respond(send, self._answer(call))

    @property
    def batches(self) -> list[list[str]]:
        """The texts of every call."""
        asked = [call.body.get("input") or call.body.get("texts") for call in self.calls]
        return [texts for texts in asked if texts]

    def refusal(self, reply: Reply) -> Json:
        return {"error": reply.error}

    def _is_too_long(self, call: Call) -> bool:
        texts = call.body.get("input") or call.body.get("texts") or []
        return self.longest is not None and any(len(text) > self.longest for text in texts)

    def _unknown(self, call: Call) -> bool:
        return call.body.get("model") not in self.models

    def _answer(self, call: Call) -> Json:
        match call.path:
            case "/api/embed":
                return {"embeddings": self._vectors(call.body["input"])}
            case "/embed/batch":
                return {"embeddings": self._vectors(call.body["texts"])}
            case "/info":
                return {"model": "mill", "dimension": self.dimension, "max_tokens": 400}
            case "/v1/embeddings":
                return {"object": "list", "data": self._items(call.body["input"])}
            case "/v1/rerank":
                return {"results": _ranked(call.body["query"], call.body["documents"])}
        return {"error": f"no such path: {call.path}"}

    def _vectors(self, texts: Sequence[str]) -> list[Any]:
        if self.vectors is not None:
            return self.vectors
        return [vector_of(text, self.dimension) for text in texts]

    def _items(self, texts: Sequence[str]) -> list[Json]:
        """Last first: an order that the client must not rely on."""
        items = [{"index": i, "embedding": v} for i, v in enumerate(self._vectors(texts))]
        return items[::-1]


def _ranked(query: str, documents: Sequence[str]) -> list[Json]:
    scores = [jaccard(words(query), words(text)) for text in documents]
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return [{"index": index, "relevance_score": score} for index, score in ranked]
