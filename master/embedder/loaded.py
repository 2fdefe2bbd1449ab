"""The models of one embedder process."""

import asyncio
import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog

from master.embedder.gathering import Gathering
from master.embedder.settings import EmbedderSettings
from master.retrieval.embedders.options import LocalOptions
from master.retrieval.embedders.protocol import Vector
from master.retrieval.embedders.sentence_transformers import SentenceTransformers
from master.retrieval.rerankers.cross_encoder import CrossEncoder

log = structlog.get_logger(__name__)

_NO_LIMIT: Final = 1_000_000
_STATM: Final = Path("/proc/self/statm")


class Loaded:
    """An embedding model, perhaps a cross-encoder, and what they have to say of themselves."""

    def __init__(self, settings: EmbedderSettings) -> None:
        options = LocalOptions(
            batch_size=settings.batch_size, threads=settings.threads, download=settings.download
        )
        place = settings.path or settings.model
        self.settings = settings
        self.dimension: int | None = None
        """Of the vectors; None until everything is loaded."""
        self.reranker = (
            CrossEncoder(settings.cross_encoder, settings.threads, download=settings.download)
            if settings.cross_encoder
            else None
        )
        self._embedder = SentenceTransformers(settings.model, place, options, _NO_LIMIT)
        self._gathering = Gathering(
            self._embedder.embed,
            batch_size=settings.batch_size,
            linger_seconds=settings.linger_seconds,
            max_waiting=settings.max_waiting,
        )
        self._began = time.monotonic()

    async def load(self) -> None:
        """Load the models. Raises EmbeddingError or RerankError."""
        dimension = await self._embedder.check()
        if self.reranker is not None:
            await self.reranker.score("word", ["word"])
        self.dimension = dimension
        took = round(time.monotonic() - self._began, 1)
        log.info("embedder.ready", model=self.settings.model, dimension=dimension, seconds=took)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Vectors, together with those of other requests. Raises EmbeddingError."""
        return await self._gathering.embed(texts)

    async def run(self) -> None:
        """Answer until cancelled."""
        await self._gathering.run()

    async def aclose(self) -> None:
        """Let the models go."""
        closing = [self._embedder.aclose()]
        if self.reranker is not None:
            closing.append(self.reranker.aclose())
        await asyncio.gather(*closing)

    def health(self) -> dict[str, Any]:
        """Whether it can be asked."""
        ready = self.dimension is not None
        return {
            "status": "healthy" if ready else "loading",
            "model_loaded": ready,
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "memory_mb": memory_mb(),
        }

    def describe(self) -> dict[str, Any]:
        """Model and limits."""
        settings = self.settings
        return {
            "model": settings.model,
            "dimension": self.dimension,
            "max_tokens": self._embedder.max_tokens,
            "max_characters": settings.max_characters,
            "max_texts": settings.max_texts,
            "batch_size": settings.batch_size,
            "waiting": len(self._gathering),
            "cross_encoder": settings.cross_encoder,
            "version": version("millrace"),
            **self.health(),
        }


def memory_mb() -> float | None:
    """Memory that this process has in RAM; None where the system does not say."""
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000, 1)
