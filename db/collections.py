"""Collections of one tenant: how their documents are cut, embedded and searched.

All functions want a connection of `tenancy.as_tenant`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.corpus import Strategy, collections, documents
from db.models import sql_list
from queue_schemas.states import DOCUMENT_MOVES, DocumentState, sources


class DimensionMismatch(ValueError):
    """Vectors of another dimension than the collection's."""


class Gone(RuntimeError):
    """The collection was deleted between two statements of ours."""


class UnknownLanguage(ValueError):
    """Postgres has no text search configuration of that name."""


@dataclass(frozen=True)
class Collection:
    """A collection as it is stored. `documents` counts them by state, where that was asked for."""

    id: UUID
    tenant: UUID
    name: str
    strategy: Strategy
    embedding_model: str | None
    dimension: int | None
    language: str
    chunking: Mapping[str, Any]
    dense_weight: float
    chunk_count: int
    word_count: int
    average_length: float
    created_at: datetime
    documents: Mapping[DocumentState, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NewCollection:
    """What whoever makes a collection decides. `embedding_model`: None only if `sparse`."""

    name: str = "default"
    strategy: Strategy = Strategy.HYBRID
    embedding_model: str | None = None
    language: str = "english"
    chunking: Mapping[str, Any] = field(
        default_factory=lambda: {"method": "words", "size": 512, "overlap": 50}
    )
    dense_weight: float = 0.7


_COLUMNS = (
    collections.c.id,
    collections.c.tenant_id.label("tenant"),
    collections.c.name,
    collections.c.strategy,
    collections.c.embedding_model,
    collections.c.dimension,
    collections.c.language,
    collections.c.chunking,
    collections.c.dense_weight,
    collections.c.chunk_count,
    collections.c.word_count,
    collections.c.average_length,
    collections.c.created_at,
)


def _collection(row: Any, counts: Mapping[DocumentState, int] | None = None) -> Collection:
    values = {**row._asdict(), "strategy": Strategy(row.strategy)}
    return Collection(**values, documents=counts or {})


async def ensure(connection: AsyncConnection, tenant: UUID, new: NewCollection) -> Collection:
    """The collection of that name: as it is if there is one, else made.

    Raises UnknownLanguage, and Gone when somebody else made it and deleted it just now.
    """
    if existing := await find(connection, tenant, new.name):
        return existing
    await _check_language(connection, new.language)
    row = {
        "id": uuid4(),
        "tenant_id": tenant,
        "name": new.name,
        "strategy": new.strategy,
        "embedding_model": new.embedding_model,
        "language": new.language,
        "chunking": dict(new.chunking),
        "dense_weight": new.dense_weight,
    }
    await connection.execute(insert(collections).values(row).on_conflict_do_nothing())
    made = await find(connection, tenant, new.name)
    if made is None:
        raise Gone(f"the collection {new.name} is not there any more")
    return made


async def find(
    connection: AsyncConnection, tenant: UUID, name: str, *, counted: bool = False
) -> Collection | None:
    """The collection of that name; with its documents counted, if wanted."""
    query = select(*_COLUMNS).filter_by(tenant_id=tenant, name=name)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return _collection(row, (await _counts(connection, tenant)).get(row.id) if counted else None)


async def of(connection: AsyncConnection, tenant: UUID) -> list[Collection]:
    """All collections by name, with their documents counted."""
    counts = await _counts(connection, tenant)
    query = select(*_COLUMNS).filter_by(tenant_id=tenant).order_by(collections.c.name)
    return [_collection(row, counts.get(row.id)) for row in await connection.execute(query)]


async def names(connection: AsyncConnection, tenant: UUID) -> list[str]:
    """The names of all collections, in their order."""
    query = select(collections.c.name).filter_by(tenant_id=tenant).order_by(collections.c.name)
    return list((await connection.execute(query)).scalars())


async def _counts(
    connection: AsyncConnection, tenant: UUID
) -> dict[UUID, dict[DocumentState, int]]:
    query = (
        select(documents.c.collection_id, documents.c.state, func.count())
        .filter_by(tenant_id=tenant)
        .group_by(documents.c.collection_id, documents.c.state)
    )
    counts: dict[UUID, dict[DocumentState, int]] = {}
    for collection, state, count in await connection.execute(query):
        counts.setdefault(collection, {})[DocumentState(state)] = count
    return counts


async def remove(connection: AsyncConnection, tenant: UUID, name: str) -> bool:
    """Delete a collection with all that is in it; False if there is none of that name."""
    found = await find(connection, tenant, name)
    if found is None:
        return False
    await hold_all(connection, found.id)
    query = collections.delete().filter_by(tenant_id=tenant, id=found.id)
    return (await connection.execute(query)).rowcount == 1


async def fix_dimension(
    connection: AsyncConnection, collection: Collection, dimension: int
) -> Collection:
    """Fix the dimension of its vectors. Raises DimensionMismatch if another one is, or the model
    was changed meanwhile."""
    query = (
        update(collections)
        .where(
            collections.c.id == collection.id,
            collections.c.embedding_model == collection.embedding_model,
            func.coalesce(collections.c.dimension, dimension) == dimension,
        )
        .values(dimension=dimension)
        .returning(*_COLUMNS)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise DimensionMismatch(
            f"the collection {collection.name} has vectors of another dimension than {dimension}, "
            "or of another model"
        )
    return _collection(row)


# A running document is taken away from whoever runs it: it works with the old settings.
# Documents before their collection, as everybody, and in one order.
_HOLD_ALL = text("""
    SELECT 1 FROM millrace.documents WHERE collection_id = :collection ORDER BY id FOR UPDATE
""")
_DONE_AGAIN = sql_list(sources(DOCUMENT_MOVES, DocumentState.WAITING) | {DocumentState.WAITING})
# One that came after the others were held, and is worked on just now, may wait for the collection
# in its turn; it is not waited for, and finds out by the revision.
_REINDEX = text(f"""
    WITH again AS (
        UPDATE millrace.documents
           SET state = 'waiting', stage = NULL, tries = 0, lease_until = NULL, ready_at = NULL,
               available_at = now(), error = NULL, embedded_count = 0, updated_at = now()
         WHERE id IN (SELECT id FROM millrace.documents
                       WHERE collection_id = :collection AND state IN ({_DONE_AGAIN})
                         FOR UPDATE SKIP LOCKED)
        RETURNING id
    )
    DELETE FROM millrace.drafts WHERE document_id IN (SELECT id FROM again)
""")


async def hold_all(connection: AsyncConnection, collection: UUID) -> None:
    """Lock the collection's documents for the rest of the transaction."""
    await connection.execute(_HOLD_ALL, {"collection": collection})


async def change(
    connection: AsyncConnection,
    tenant: UUID,
    name: str,
    *,
    embedding_model: str | None = None,
    strategy: Strategy | None = None,
    chunking: Mapping[str, Any] | None = None,
    language: str | None = None,
    dense_weight: float | None = None,
) -> Collection | None:
    """Change settings; None if there is no such collection. Raises UnknownLanguage.

    Its documents are done again, unless only the weight changes; with no setting at all too.
    Until then the old chunks are found, except by vectors of another model.
    """
    query = select(*_COLUMNS).filter_by(tenant_id=tenant, name=name)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if language is not None:
        await _check_language(connection, language)
    settings = {
        "embedding_model": embedding_model,
        "strategy": strategy,
        "chunking": None if chunking is None else dict(chunking),
        "language": language,
        "dense_weight": dense_weight,
    }
    values: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    done_again = values.keys() != {"dense_weight"}
    if done_again:
        await hold_all(connection, row.id)
        values["revision"] = collections.c.revision + 1
    if embedding_model is not None:  # the same one too: its engine may have another under its name
        values["dimension"] = None
    changed = (
        update(collections).where(collections.c.id == row.id).values(values).returning(*_COLUMNS)
    )
    found = (await connection.execute(changed)).one_or_none()
    if found is None:
        return None
    if done_again:
        await connection.execute(_REINDEX, {"collection": row.id})
    return _collection(found)


_LANGUAGES = text("""
    SELECT cfgname FROM pg_ts_config
     WHERE cfgnamespace = CAST('pg_catalog' AS regnamespace) ORDER BY cfgname
""")


async def languages(connection: AsyncConnection) -> list[str]:
    """The text search configurations that this Postgres has."""
    return list((await connection.execute(_LANGUAGES)).scalars())


async def _check_language(connection: AsyncConnection, language: str) -> None:
    known = await languages(connection)
    if language not in known:
        raise UnknownLanguage(f"{language} is none of {', '.join(known)}")
