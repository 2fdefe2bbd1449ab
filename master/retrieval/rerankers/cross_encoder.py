"""A cross-encoder in this process, with the sentence-transformers library."""

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from master.retrieval.embedders.local_models import LocalModel, ModelThread
from master.retrieval.embedders.protocol import EmbeddingError
from master.retrieval.rerankers.protocol import RerankError
from queue_schemas.messages import ErrorKind

BATCH_SIZE = 32


class CrossEncoder:
    """One model that reads question and passage together."""

    def __init__(self, place: str, threads: int | None = None, *, download: bool = False) -> None:
        """`place`: name at the hub or folder."""
        self.model = place
        self._thread = ModelThread(LocalModel("CrossEncoder", place, threads, download))

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Score every text; between batches, other callers have their turn."""
        scores: list[float] = []
        try:
            for start in range(0, len(texts), BATCH_SIZE):
                scores += await self._batch(query, texts[start : start + BATCH_SIZE])
        except EmbeddingError as error:
            raise RerankError(error.kind, error.code, error.message) from error
        if not all(map(math.isfinite, scores)):
            message = f"{self.model} gave scores that are not finite"
            raise RerankError(ErrorKind.PERMANENT, "bad_score", message)
        return scores

    async def aclose(self) -> None:
        """Let the thread go."""
        await self._thread.aclose()

    async def _batch(self, query: str, texts: Sequence[str]) -> list[float]:
        def predict(model: Any) -> list[float]:
            if model.num_labels != 1:
                message = f"{self.model} has {model.num_labels} labels; a reranker has one"
                raise RerankError(ErrorKind.PERMANENT, "engine_misconfigured", message)
            # Some models give logits unless told otherwise; a sigmoid keeps their order.
            sigmoid = import_module("torch.nn").Sigmoid()
            pairs = [(query, text) for text in texts]
            scores = model.predict(pairs, activation_fn=sigmoid, show_progress_bar=False)
            return [float(score) for score in scores]

        return await self._thread.run(predict)
