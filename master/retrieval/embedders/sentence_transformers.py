"""An embedding model in this process, with the sentence-transformers library.

Texts longer than the model's context are cut by the library, as every user of it expects.
"""

from collections.abc import Sequence
from typing import Any, Final

from master.retrieval.embedders.batches import in_batches, words_of
from master.retrieval.embedders.local_models import LocalModel, ModelThread
from master.retrieval.embedders.options import LocalOptions, read
from master.retrieval.embedders.protocol import Vector
from queue_schemas.registry import Model

_SMALLEST_USUAL_CONTEXT: Final = 256


class SentenceTransformers:
    """One model; its vectors have length 1."""

    def __init__(self, name: str, place: str, options: LocalOptions, most_tokens: int) -> None:
        """`place`: name at the hub or folder. `most_tokens`: of the registry, for its context."""
        self.model = name
        self.max_tokens = min(most_tokens, _SMALLEST_USUAL_CONTEXT)
        self._most_tokens = most_tokens
        self._options = options
        self._thread = ModelThread(
            LocalModel("SentenceTransformer", place, options.threads, options.download)
        )

    @property
    def max_words(self) -> int:
        """How many English words fit."""
        return words_of(self.max_tokens)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text; between batches, other callers have their turn."""
        return await in_batches(texts, self._options.batch_size, self._batch)

    async def check(self) -> int:
        """Load the model, and run it once."""
        dimension = len((await self.embed(["word"]))[0])
        own = await self._thread.run(lambda model: model.max_seq_length)
        self.max_tokens = min(self._most_tokens, own or self._most_tokens)
        return dimension

    async def aclose(self) -> None:
        """Let the thread go."""
        await self._thread.aclose()

    async def _batch(self, texts: Sequence[str]) -> object:
        def encode(model: Any) -> object:
            given = model.encode(
                list(texts),
                batch_size=len(texts),
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            return given.tolist()

        return await self._thread.run(encode)


def make(model: Model) -> SentenceTransformers:
    """The embedder of a registry entry."""
    options = read(LocalOptions, model)
    place = options.path or model.name_at_engine
    return SentenceTransformers(model.name, place, options, model.context_length)
