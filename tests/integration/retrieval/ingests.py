"""What the tests of ingestion do again and again."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import collections, documents
from db.collections import NewCollection
from db.corpus import Origin, Strategy
from db.documents import NewDocument, StoredDocument
from db.tenancy import as_tenant
from master.retrieval.embedders.pool import Embedders
from master.retrieval.ingest import Outcome, ingest
from master.retrieval.parsing.parser_process import ParserProcess
from master.retrieval.stages import Ingestion
from master.settings import IngestSettings
from queue_schemas.registry import Registry
from tests.doubles.embedding_engine import EmbeddingEngine

CHAT = {"name": "chat", "provider": "extractive"}
WORDS = Strategy.SPARSE


def embedding_entry(url: str, name: str = "mill") -> dict[str, Any]:
    """An embedding model of the registry, answered by the fake engine."""
    return {
        "name": name,
        "provider": "embedder",
        "endpoint": url,
        "capabilities": ["embedding"],
    }


@dataclass
class Bench:
    """One tenant whose documents are ingested here."""

    engine: AsyncEngine
    tenant: UUID
    work: Ingestion
    model: EmbeddingEngine

    async def add(
        self, body: str | bytes, name: str = "a.txt", *, collection: str = "default", **new: Any
    ) -> StoredDocument:
        """A document that waits."""
        content = body.encode() if isinstance(body, str) else body
        settings = {"strategy": Strategy.HYBRID, "embedding_model": "mill", **new}
        async with as_tenant(self.engine, self.tenant) as connection:
            made = await collections.ensure(
                connection, self.tenant, NewCollection(name=collection, **settings)
            )
            digest = hashlib.sha256(content).digest()
            row = NewDocument(made.id, name, Origin.UPLOAD, digest)
            stored, _ = await documents.add(connection, self.tenant, row, content)
        return stored

    async def ingest(self, document: StoredDocument) -> Outcome:
        """One attempt."""
        return await ingest(self.work, self.tenant, document.id)

    async def now(self, document: StoredDocument) -> StoredDocument:
        """The document as it is now."""
        async with as_tenant(self.engine, self.tenant) as connection:
            found = await documents.find(connection, self.tenant, document.id)
        assert found is not None
        return found

    async def rows(self, query: str, **values: Any) -> Sequence[Any]:
        """What the database has, as its owner."""
        async with self.engine.connect() as connection:
            return (await connection.execute(text(query), values)).all()

    async def texts(self, document: StoredDocument) -> list[str]:
        """The chunks that can be found."""
        query = "SELECT text FROM millrace.chunks WHERE document_id = :id ORDER BY position"
        return [row[0] for row in await self.rows(query, id=document.id)]

    async def due_now(self, document: StoredDocument) -> None:
        """Let its pause, or its lease, be over."""
        async with self.engine.begin() as connection:
            await connection.execute(
                text(
                    "UPDATE millrace.documents SET available_at = now(), lease_until = CASE "
                    "WHEN state = 'running' THEN now() - interval '1 second' END WHERE id = :id"
                ),
                {"id": document.id},
            )


@asynccontextmanager
async def bench(
    engine: AsyncEngine, tenant: UUID, model: EmbeddingEngine, url: str, **settings: Any
) -> AsyncGenerator[Bench]:
    """Everything that ingests, over real processes and a fake embedding engine."""
    registry = Registry.model_validate({"models": [CHAT, embedding_entry(url)]})
    given = {"DATABASE_URL": SecretStr("postgresql://unused"), **settings}
    embedders = Embedders(lambda: registry)
    try:
        async with ParserProcess() as parser:
            work = Ingestion(engine, parser, embedders, IngestSettings(**given))
            yield Bench(engine, tenant, work, model)
    finally:
        await embedders.aclose()
