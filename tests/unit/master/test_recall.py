"""Recall where there is nothing to recall with."""

from typing import Any
from uuid import UUID

from master.recall import Recall
from master.retrieval.embedders.pool import Embedders
from queue_schemas.registry import Registry

OF = (UUID(int=1), "ada", UUID(int=2))


async def test_without_an_embedding_model_nothing_is_recalled_and_nothing_embedded() -> None:
    registry = Registry.model_validate({"models": [{"name": "mill", "provider": "ollama"}]})
    untouched: Any = None  # no database is asked
    recall = Recall(untouched, Embedders(lambda: registry), lambda: registry, 0.4)
    found = await recall.find(OF, "What is my name?")
    assert (found.recalled, found.how) == ((), "no embedding model")
    assert await recall.embed_new() == 0
