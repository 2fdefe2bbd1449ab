"""An attempt at a document: claimed, then parse, chunk, embed, store; each is timed and told."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Unpack
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import chunks, claims, collections, documents, drafts
from db.claims import Fenced, Progress
from db.collections import Collection
from db.corpus import Origin, Strategy
from db.documents import StoredDocument
from db.tenancy import as_tenant
from master.metrics.ingests import note_ingest_stage
from master.retrieval.chunking import LONGEST_CHUNK, Chunking
from master.retrieval.embedders.long_texts import embed_all
from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import Embedder, Vector
from master.retrieval.fetch import FetchLimits, fetch
from master.retrieval.parsing.parsed import ParseError, Pieces
from master.retrieval.parsing.parser_process import ParserProcess
from master.settings import IngestSettings
from queue_schemas.states import DocumentStage

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ingestion:
    """What documents are ingested with; belongs to one event loop."""

    engine: AsyncEngine
    parser: ParserProcess
    embedders: Embedders
    settings: IngestSettings
    loaded: dict[str, Embedder] = field(default_factory=dict)
    """Those whose `check` was awaited, so that they know how many words they take."""
    indexed: set[int] = field(default_factory=set)
    """Dimensions whose index was looked at."""


@dataclass
class Attempt:
    """One attempt at a document. Each write renews its lease, and says what comes next."""

    work: Ingestion
    document: StoredDocument
    collection: Collection
    body: bytes | None = None
    drafts: int = 0
    """Chunks that an earlier attempt has cut already, and how many of them it has embedded."""
    embedded: int = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """A connection that sees what the document's tenant sees."""
        async with as_tenant(self.work.engine, self.document.tenant) as connection:
            yield connection

    async def tell(self, connection: AsyncConnection, **progress: Unpack[Progress]) -> None:
        """Write progress. Raises Fenced."""
        lease, document = self.work.settings.ingest_lease_seconds, self.document
        if not await claims.renew(connection, document.id, document.attempt, lease, **progress):
            raise Fenced
        for stage, milliseconds in progress.get("timings", {}).items():
            if stage != progress.get("stage"):  # else it goes on, and its time grows
                note_ingest_stage(stage, milliseconds)

    @property
    def embeds(self) -> bool:
        """Whether its chunks get vectors."""
        return self.collection.strategy is not Strategy.SPARSE


async def begin(work: Ingestion, tenant: UUID, document: UUID) -> Attempt | None:
    """Claim the document and see what an earlier attempt left; None if it is not to be had."""
    lease = work.settings.ingest_lease_seconds
    async with as_tenant(work.engine, tenant) as connection:
        claimed = await claims.claim(connection, tenant, document, lease)
        if claimed is None:
            return None
        collection = await collections.find(connection, tenant, claimed.collection)
        if collection is None:
            return None
        attempt = Attempt(work, claimed, collection)
        # Drafts are written all at once, and a reindex forgets them: those that are there will do.
        attempt.drafts, attempt.embedded = await drafts.counts(connection, document)
        if attempt.drafts == 0:
            attempt.body = await documents.body(connection, document)
            await attempt.tell(connection, stage=DocumentStage.PARSE)
        else:
            await attempt.tell(connection, stage=_after_chunk(attempt))
    return attempt


async def run(attempt: Attempt) -> None:
    """Take the document from where the last attempt left it to ready.

    Raises Fenced when the attempt is over, and whatever a stage raises.
    """
    embedder = await _embedder(attempt)
    if attempt.drafts == 0:
        await _keep_drafts(attempt, await _parse(attempt, embedder))
    if embedder is not None:
        await _embed(attempt, embedder)
    await _store(attempt)


def _after_chunk(attempt: Attempt) -> DocumentStage:
    return DocumentStage.EMBED if attempt.embeds else DocumentStage.STORE


async def _embedder(attempt: Attempt) -> Embedder | None:
    """The collection's embedder, loaded; before anything else, for nothing is done without it."""
    name = attempt.collection.embedding_model
    if not attempt.embeds or name is None:
        return None
    embedder = attempt.work.embedders.get(name)
    if attempt.work.loaded.get(name) is not embedder:
        await embedder.check()
        attempt.work.loaded[name] = embedder
    return embedder


async def _parse(attempt: Attempt, embedder: Embedder | None) -> Pieces:
    """Read and cut the document; cutting is told as a stage of its own."""
    # What is longer than the model reads would be cut off silently.
    most = LONGEST_CHUNK if embedder is None else embedder.max_words
    chunking = Chunking.fitting(attempt.collection.chunking, most)
    began = time.monotonic()
    document = attempt.document
    body, media_type = await _content(attempt)
    pieces = await attempt.work.parser.parse(body, document.name, chunking, media_type)
    async with attempt.transaction() as connection:
        await attempt.tell(
            connection,
            stage=DocumentStage.CHUNK,
            page_count=pieces.pages,
            flags=dict(pieces.flags),
            timings={DocumentStage.PARSE: max(0.0, round(_since(began) - pieces.cut_ms, 1))},
        )
    attempt.body = None  # it may be large
    return pieces


async def _content(attempt: Attempt) -> tuple[bytes, str | None]:
    document, settings = attempt.document, attempt.work.settings
    if attempt.body is not None:
        return attempt.body, document.media_type
    if document.origin is not Origin.URL or document.url is None:
        raise Fenced  # it was deleted
    limits = FetchLimits(
        size_bytes=settings.max_document_bytes, allow_private=settings.fetch_private
    )
    fetched = await fetch(document.url, limits)
    async with attempt.transaction() as connection:
        await claims.keep_body(
            connection, document.id, document.attempt, fetched.body, fetched.media_type
        )
    return fetched.body, fetched.media_type


async def _keep_drafts(attempt: Attempt, pieces: Pieces) -> None:
    began = time.monotonic()
    made = pieces.drafts
    if not made:
        raise ParseError("no_text", "there is no text in it")
    async with attempt.transaction() as connection:
        await drafts.replace(connection, attempt.document.id, attempt.document.attempt, made)
        await attempt.tell(
            connection,
            stage=_after_chunk(attempt),
            chunk_count=len(made),
            embedded_count=0,
            timings={DocumentStage.CHUNK: round(_since(began) + pieces.cut_ms, 1)},
        )
    attempt.drafts, attempt.embedded = len(made), 0


async def _embed(attempt: Attempt, embedder: Embedder) -> None:
    began = time.monotonic()
    prefix = attempt.work.embedders.prefixes(embedder.model).document_prefix
    while attempt.embedded < attempt.drafts:
        async with attempt.transaction() as connection:
            batch = await drafts.without_vector(
                connection, attempt.document.id, attempt.work.settings.ingest_batch
            )
        if not batch:
            raise Fenced  # somebody forgot the drafts
        positions, texts = zip(*batch, strict=True)
        vectors = await embed_all(embedder, texts, prefix)
        await _fix_dimension(attempt, len(vectors[0]))
        attempt.embedded += len(batch)
        await _keep(attempt, dict(zip(positions, vectors, strict=True)), began)


async def _keep(attempt: Attempt, vectors: Mapping[int, Vector], began: float) -> None:
    last = attempt.embedded >= attempt.drafts
    async with attempt.transaction() as connection:
        await drafts.put_vectors(connection, attempt.document.id, attempt.document.attempt, vectors)
        await attempt.tell(
            connection,
            stage=DocumentStage.STORE if last else DocumentStage.EMBED,
            embedded_count=attempt.embedded,
            timings={DocumentStage.EMBED: _since(began)},
        )


async def _fix_dimension(attempt: Attempt, dimension: int) -> None:
    """The first vectors of a collection fix its dimension. Raises DimensionMismatch."""
    if attempt.collection.dimension == dimension:
        # Its index may have failed to be made; each process tries once.
        if dimension not in attempt.work.indexed:
            await _index(attempt.work, dimension)
        return
    await _index(attempt.work, dimension)
    async with attempt.transaction() as connection:
        attempt.collection = await collections.fix_dimension(
            connection, attempt.collection, dimension
        )


async def _index(work: Ingestion, dimension: int) -> None:
    work.indexed.add(dimension)
    if not await chunks.ensure_index(work.engine, dimension):
        log.warning("ingest.no_index", dimension=dimension)


async def _store(attempt: Attempt) -> None:
    began = time.monotonic()
    document = attempt.document
    embedded_by = attempt.collection.embedding_model if attempt.embeds else None
    async with attempt.transaction() as connection:
        # Nothing before it: it locks the collection first, as everybody does.
        await chunks.publish(connection, document.id, document.attempt, embedded_by)
        timings = {DocumentStage.STORE.value: _since(began)}
        await claims.note_timings(connection, document.id, document.attempt, timings)
    note_ingest_stage(DocumentStage.STORE, timings[DocumentStage.STORE])


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
