"""The embedders of one process, one for each embedding model of the registry."""

import asyncio
from collections.abc import Callable

from master.retrieval.embedders.options import Prefixes, read
from master.retrieval.embedders.protocol import Embedder, EmbeddingError
from master.retrieval.embedders.registry import make_embedder
from queue_schemas.messages import ErrorKind
from queue_schemas.registry import Model, Registry


class Embedders:
    """Makes an embedder when it is first asked for, and keeps it."""

    def __init__(self, registry: Callable[[], Registry]) -> None:
        self._registry = registry
        self._kept: dict[str, tuple[Model, Embedder]] = {}
        self._outdated: list[Embedder] = []

    def prefixes(self, name: str) -> Prefixes:
        """What a model wants to read before queries and documents."""
        model = self._registry().get(name)
        return read(Prefixes, model) if model else Prefixes()

    def get(self, name: str) -> Embedder:
        """The embedder of a registry entry, as the registry is now.

        Raises EmbeddingError (permanent, `model_not_found`) when no such model embeds.
        """
        model = self._registry().get(name)
        if model is None or model.chats:
            message = f"the registry has no embedding model {name!r}"
            raise EmbeddingError(ErrorKind.PERMANENT, "model_not_found", message)
        kept = self._kept.get(name)
        if kept is not None and kept[0] == model:
            return kept[1]
        if kept is not None:
            self._outdated.append(kept[1])  # somebody may be using it; closed at the end
        embedder = make_embedder(model)
        self._kept[name] = (model, embedder)
        return embedder

    async def aclose(self) -> None:
        """Close all of them."""
        kept = [embedder for _, embedder in self._kept.values()] + self._outdated
        self._kept, self._outdated = {}, []
        await asyncio.gather(*(embedder.aclose() for embedder in kept))
