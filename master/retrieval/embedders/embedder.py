"""`millrace embedder` at the model's endpoint."""

from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from master.retrieval.embedders.batches import words_of
from master.retrieval.embedders.options import HttpOptions, read
from master.retrieval.embedders.remote import Dialect, Remote
from queue_schemas.registry import Model


class EmbedderProcess(Remote):
    """One embedder; it knows its model's limits itself."""

    async def check(self) -> int:
        """Wait for its model, and ask for its limits."""
        dimension = await super().check()
        told = await self.engine.get("/info")
        tokens = told.get("max_tokens") if isinstance(told, dict) else None
        if isinstance(tokens, int):
            self.max_words = words_of(tokens)
        return dimension


def make(model: Model) -> EmbedderProcess:
    """The embedder of a registry entry."""
    options = read(HttpOptions, model)
    dialect = Dialect("/embed/batch", _body, _vectors, options.batch_size)
    return EmbedderProcess(model, model.endpoint or "", dialect)


def _body(texts: Sequence[str]) -> dict[str, JsonValue]:
    return {"texts": list(texts)}


def _vectors(answer: Any) -> object:
    return answer["embeddings"]
