"""Long-term recall: what the same person said before, found by its meaning.

Vectors are made by a loop, after the answers. Where no model embeds, or none answers, nothing is
recalled, and the request's record says so.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from db import conversations, exchange_vectors
from db.conversations import StoredExchange
from db.exchange_vectors import Near, Unembedded
from db.tenancy import as_tenant
from master.exchanges import exchange_of
from master.outages import is_outage
from master.planning.remembered import Recalled
from master.planning.summary import transcript
from master.retrieval.embedders.long_texts import embed_all, embed_beginning
from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import EmbeddingError, Vector
from queue_schemas.registry import Registry

log = structlog.get_logger(__name__)

_EMBED_SECONDS = 5.0
_LOOKED_AT = 12
"""Nearest ones, of which the window may show some already."""
_AT_ONCE = 20
_HOLD_SECONDS = 120.0
_AGAIN_SECONDS = 60.0
_BATCH = 32


@dataclass(frozen=True)
class Found:
    """What was recalled, and how that went: done, or why not."""

    recalled: tuple[Recalled, ...] = ()
    how: str = "off"


class Recall:
    """Finds earlier exchanges of one person, and keeps them findable."""

    def __init__(
        self,
        engine: AsyncEngine,
        embedders: Embedders,
        registry: Callable[[], Registry],
        least_score: float,
    ) -> None:
        self._engine = engine
        self._embedders = embedders
        self._registry = registry
        self._least_score = least_score

    async def find(self, of: tuple[UUID, str | None, UUID], text: str) -> Found:
        """The exchanges of (tenant, end user, conversation) that are nearest to a text."""
        model = self._registry().default_embedding()
        if model is None:
            return Found(how="no embedding model")
        if not text.strip():
            return Found(how="nothing to look for")
        try:
            vector = await self._vector(model.name, text)
        except (EmbeddingError, TimeoutError) as error:
            reason = str(error) or "too slow"
            log.warning("recall.without_vectors", model=model.name, error=reason)
            return Found(how="the embedding model does not answer")
        async with as_tenant(self._engine, of[0]) as connection:
            near = await exchange_vectors.nearest(connection, of, model.name, vector, _LOOKED_AT)
        near = [one for one in near if one.score >= self._least_score]
        return Found(await self._texts(of[0], near), "done")

    async def _vector(self, model: str, text: str) -> Vector:
        prefix = self._embedders.prefixes(model).query_prefix
        async with asyncio.timeout(_EMBED_SECONDS):
            return await embed_beginning(self._embedders.get(model), text, prefix)

    async def _texts(self, tenant: UUID, near: list[Near]) -> tuple[Recalled, ...]:
        if not near:
            return ()
        async with self._engine.connect() as connection:
            found = await conversations.by_request(
                connection,
                tenant,
                [one.conversation for one in near],
                [one.request for one in near],
            )
        return tuple(
            Recalled(
                conversation=one.conversation,
                request=one.request,
                score=round(one.score, 4),
                text=transcript(exchange_of(found[one.request])),
            )
            for one in near
            if one.request in found
        )

    async def embed_new(self) -> int:
        """Give new exchanges their vectors; how many got theirs. Raises the database's errors."""
        model = self._registry().default_embedding()
        if model is None:
            return 0
        async with self._engine.begin() as connection:
            taken = await exchange_vectors.take(connection, _AT_ONCE, _HOLD_SECONDS)
        done = 0
        for one in taken:
            try:
                done += await self._embed(one, model.name)
            except Exception as error:
                if is_outage(error):
                    raise
                # It is looked at again when it is not held any more; the others go on.
                log.error("recall.failed", conversation=str(one.id), exc_info=error)
        return done

    async def _embed(self, taken: Unembedded, model: str) -> int:
        again: float | None = None
        async with self._engine.connect() as connection:
            wanted = await exchange_vectors.missing(connection, taken.id, model, _BATCH)
            found = await conversations.by_request(connection, taken.tenant, [taken.id], wanted)
        stored = list(found.values())
        try:
            vectors = await self._vectors(model, stored)
        except EmbeddingError as error:
            log.warning("recall.not_embedded", model=model, error=str(error))
            vectors, again = [], _AGAIN_SECONDS
        if len(wanted) == _BATCH:
            again = again or 0.0
        async with as_tenant(self._engine, taken.tenant) as connection:
            pairs = [(one.request, v) for one, v in zip(stored, vectors, strict=False)]
            await exchange_vectors.put(connection, taken.id, model, pairs)
            await exchange_vectors.release(connection, taken, again)
        return len(pairs)

    async def _vectors(self, model: str, stored: list[StoredExchange]) -> list[Vector]:
        if not stored:
            return []
        prefix = self._embedders.prefixes(model).document_prefix
        texts = [transcript(exchange_of(one)) for one in stored]
        return await embed_all(self._embedders.get(model), texts, prefix)
