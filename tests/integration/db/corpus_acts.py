"""What the tests of the corpus do again and again."""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import (
    chunks,
    claims,
    collections,
    documents,
    drafts,
    judgements,
    new_requests,
    tenants,
)
from db.collections import Collection, NewCollection
from db.corpus import Origin, Strategy
from db.documents import NewDocument, StoredDocument
from db.judgements import NewJudgement, StoredJudgement
from db.models import JudgementKind, JudgementSource
from db.tenancy import as_tenant

MODEL = "tiny"
LEASE = 60.0


@dataclass(frozen=True)
class Cut:
    """A draft."""

    position: int
    text: str
    heading_path: Sequence[str] = ()
    page: int | None = None


async def tenant_named(engine: AsyncEngine, name: str) -> UUID:
    async with engine.begin() as connection:
        return await tenants.ensure_tenant(connection, name)


async def asked(engine: AsyncEngine, tenant: UUID, end_user: str | None = None) -> UUID:
    """A request without a subtask."""
    row = new_requests.NewRequest(
        uuid4(), tenant, end_user, "mill", "{}", "{}", seed=1, reply_to=None, deadline_seconds=600
    )
    async with engine.begin() as connection:
        await new_requests.add(connection, row, [])
    return row.id


def thumb(rater: str = "user:alice", score: float = 1.0, **more: Any) -> NewJudgement:
    return NewJudgement(JudgementKind.HUMAN, rater, JudgementSource.API, score=score, **more)


async def judged(engine: AsyncEngine, tenant: UUID) -> StoredJudgement:
    """A judgement of a request of its own."""
    request = await asked(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        [(stored, _)] = await judgements.put(connection, tenant, request, [thumb()])
    return stored


async def collection_of(
    engine: AsyncEngine,
    tenant: UUID,
    *,
    name: str = "default",
    dimension: int | None = None,
    language: str = "english",
) -> Collection:
    """A collection: hybrid if a dimension is given, else sparse."""
    strategy = Strategy.SPARSE if dimension is None else Strategy.HYBRID
    new = NewCollection(name, strategy, dimension and MODEL, language)
    async with as_tenant(engine, tenant) as connection:
        collection = await collections.ensure(connection, tenant, new)
        if dimension is None:
            return collection
        return await collections.fix_dimension(connection, collection, dimension)


def new_document(collection: Collection, content: str, **fields: object) -> NewDocument:
    digest = hashlib.sha256(content.encode()).digest()
    return NewDocument(collection.id, content[:40], Origin.TEXT, digest, **fields)  # type: ignore[arg-type] # fields are checked by the class


async def add(
    connection: AsyncConnection, collection: Collection, content: str, **fields: object
) -> StoredDocument:
    new = new_document(collection, content, **fields)
    return (await documents.add(connection, collection.tenant, new, content.encode()))[0]


async def claimed(connection: AsyncConnection, document: StoredDocument) -> StoredDocument:
    found = await claims.claim(connection, document.tenant, document.id, LEASE)
    assert found is not None
    return found


async def put(
    connection: AsyncConnection,
    document: StoredDocument,
    texts: Sequence[str],
    vectors: Sequence[Sequence[float]] | None = None,
) -> None:
    """Publish these texts as the chunks of a document that runs."""
    cut = [Cut(position, text) for position, text in enumerate(texts)]
    await drafts.replace(connection, document.id, document.attempt, cut)
    if vectors is not None:
        by_position = dict(enumerate(vectors))
        await drafts.put_vectors(connection, document.id, document.attempt, by_position)
    embedded_by = None if vectors is None else MODEL
    await chunks.publish(connection, document.id, document.attempt, embedded_by)


async def published(
    engine: AsyncEngine,
    collection: Collection,
    content: str,
    texts: Sequence[str],
    vectors: Sequence[Sequence[float]] | None = None,
    **fields: object,
) -> StoredDocument:
    """A document that went all the way."""
    async with as_tenant(engine, collection.tenant) as connection:
        document = await claimed(connection, await add(connection, collection, content, **fields))
        await put(connection, document, texts, vectors)
        found = await documents.find(connection, collection.tenant, document.id)
    assert found is not None
    return found


async def fresh(engine: AsyncEngine, collection: Collection) -> Collection:
    """The collection as it is now."""
    async with as_tenant(engine, collection.tenant) as connection:
        found = await collections.find(connection, collection.tenant, collection.name)
    assert found is not None
    return found


def directions(count: int, dimension: int, seed: int) -> list[list[float]]:
    """Unit vectors around a few centres, as embeddings are."""
    random_numbers = random.Random(seed)
    centres = [[random_numbers.gauss(0, 1) for _ in range(dimension)] for _ in range(8)]
    return [
        _unit([part + random_numbers.gauss(0, 0.4) for part in centres[index % len(centres)]])
        for index in range(count)
    ]


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.hypot(*vector)
    return [part / length for part in vector]
