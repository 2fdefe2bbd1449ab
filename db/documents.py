"""Documents: what was sent to be ingested, and what became of it; `db.claims` is its way there.

All functions want a connection of `tenancy.as_tenant`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    Select,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from db import terms
from db.collections import Gone
from db.corpus import Origin, collections, document_bodies, documents, drafts
from db.models import sql_list
from queue_schemas.states import DOCUMENT_MOVES, DocumentStage, DocumentState, sources

_NO_COLLECTION = "23503"
_ID_BEGINS = re.compile("[0-9a-f]{6,32}")


def _from(target: DocumentState) -> str:
    return sql_list(sources(DOCUMENT_MOVES, target))


@dataclass(frozen=True)
class NewDocument:
    """A document to store. `digest`: SHA-256 of the content, or of the URL to fetch.

    `replaces`: when it is ready, the older ones of the same name and collection go.
    """

    collection: UUID
    name: str
    origin: Origin
    digest: bytes
    url: str | None = None
    media_type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    replaces: bool = False


@dataclass(frozen=True)
class StoredDocument:
    """A document without its content. `tries`: attempts since somebody last asked for it."""

    id: UUID
    tenant: UUID
    collection_id: UUID
    collection: str
    name: str
    origin: Origin
    url: str | None
    media_type: str | None
    digest: bytes
    metadata: Mapping[str, Any]
    replaces: bool
    state: DocumentState
    stage: DocumentStage | None
    attempt: int
    tries: int
    lease_until: datetime | None
    available_at: datetime
    error: Mapping[str, Any] | None
    byte_count: int
    page_count: int | None
    chunk_count: int
    embedded_count: int
    timings: Mapping[str, float]
    flags: Mapping[str, int]
    created_at: datetime
    updated_at: datetime
    ready_at: datetime | None


_COLUMNS = (
    documents.c.id,
    documents.c.tenant_id.label("tenant"),
    documents.c.collection_id,
    collections.c.name.label("collection"),
    documents.c.name,
    documents.c.origin,
    documents.c.url,
    documents.c.media_type,
    documents.c.digest,
    documents.c.metadata.label("metadata"),
    documents.c.replaces,
    documents.c.state,
    documents.c.stage,
    documents.c.attempt,
    documents.c.tries,
    documents.c.lease_until,
    documents.c.available_at,
    documents.c.error,
    documents.c.byte_count,
    documents.c.page_count,
    documents.c.chunk_count,
    documents.c.embedded_count,
    documents.c.timings,
    documents.c.flags,
    documents.c.created_at,
    documents.c.updated_at,
    documents.c.ready_at,
)


def whole() -> Select[Any]:
    """A query for whole documents, as `one` reads them."""
    return select(*_COLUMNS).join(collections, collections.c.id == documents.c.collection_id)


def _document(row: Any) -> StoredDocument:
    stage = None if row.stage is None else DocumentStage(row.stage)
    enums = {"origin": Origin(row.origin), "state": DocumentState(row.state), "stage": stage}
    return StoredDocument(**{**row._asdict(), **enums})


async def one(connection: AsyncConnection, query: Select[Any]) -> StoredDocument | None:
    """The document that a query of `whole` finds."""
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _document(row)


async def add(
    connection: AsyncConnection, tenant: UUID, new: NewDocument, body: bytes | None
) -> tuple[StoredDocument, bool]:
    """Store a document, and whether it is new. The same digest is the same document.

    One that failed waits again. `body`: None for a URL that is still to be fetched (`keep_body`).
    Who replaces calls `remove_older` as well, in the end, for what is ready already. Raises Gone.
    """
    row: dict[str, Any] = {
        "id": uuid4(),
        "tenant_id": tenant,
        "collection_id": new.collection,
        "name": new.name,
        "origin": new.origin,
        "url": new.url,
        "media_type": new.media_type,
        "digest": new.digest,
        "metadata": dict(new.metadata),
        "flags": dict(new.flags),
        "replaces": new.replaces,
        "byte_count": len(body or b""),
    }
    if new.replaces:
        # Not the age of the transaction: of two in one, the later is the newer.
        row["created_at"] = func.clock_timestamp()
    stored = insert(documents).values(row).on_conflict_do_nothing().returning(documents.c.id)
    try:
        created = (await connection.execute(stored)).scalar_one_or_none() is not None
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != _NO_COLLECTION:
            raise
        raise Gone("the collection is not there any more") from error
    if created and body is not None:
        content = {"document_id": row["id"], "tenant_id": tenant, "body": body}
        await connection.execute(insert(document_bodies).values(content))
    same = whole().where(
        documents.c.collection_id == new.collection, documents.c.digest == new.digest
    )
    if not created and new.replaces:
        await _send_again(connection, new)
    document = await one(connection, same)
    if document is None:  # replaced or deleted since the insert met it
        return await add(connection, tenant, new, body)
    if document.state is DocumentState.FAILED and await _retry_as(connection, new, document):
        document = _document((await connection.execute(same)).one())
    return document, created


async def _retry_as(connection: AsyncConnection, new: NewDocument, failed: StoredDocument) -> bool:
    """What is said of it now counts: the old name may be why it failed."""
    if not await retry(connection, failed.tenant, failed.id):
        return False
    said = {
        "name": new.name,
        "origin": new.origin,
        "media_type": new.media_type,
        "metadata": dict(new.metadata),
        "replaces": new.replaces,
    }
    await connection.execute(update(documents).filter_by(id=failed.id).values(said))
    # Cut by what was said before; and what failed is rarely far beyond that.
    await connection.execute(drafts.delete().filter_by(document_id=failed.id))
    return True


# In the order of their ids, as everybody who holds several.
_HOLD_NAMED = text("""
    SELECT 1 FROM millrace.documents
     WHERE collection_id = :collection AND (name = :name OR digest = :digest)
     ORDER BY id FOR UPDATE
""")
_SEND_AGAIN = text("""
    UPDATE millrace.documents d
       SET name = :name, replaces = true, created_at = clock_timestamp(), updated_at = now()
     WHERE collection_id = :collection AND digest = :digest
       AND (name <> :name OR NOT replaces OR EXISTS (
           SELECT FROM millrace.documents o
            WHERE o.collection_id = d.collection_id AND o.name = :name AND o.id <> d.id))
""")


async def _send_again(connection: AsyncConnection, new: NewDocument) -> None:
    """What is there already has its last name, and is the newest of that name."""
    values = {"collection": new.collection, "name": new.name, "digest": new.digest}
    await connection.execute(_HOLD_NAMED, values)
    await connection.execute(_SEND_AGAIN, values)


async def find(connection: AsyncConnection, tenant: UUID, document: UUID) -> StoredDocument | None:
    """The document, None if the tenant has none of that id."""
    query = whole().where(documents.c.tenant_id == tenant, documents.c.id == document)
    return await one(connection, query)


async def page(
    connection: AsyncConnection,
    tenant: UUID,
    *,
    collection: str | None = None,
    state: DocumentState | None = None,
    match: str | None = None,
    limit: int = 50,
    after: UUID | None = None,
) -> list[StoredDocument]:
    """Documents, newest first; `after` is the last one of the page before.

    `match`: those of that name, or whose id begins so.
    """
    query = whole().where(documents.c.tenant_id == tenant)
    if collection is not None:
        query = query.where(collections.c.name == collection)
    if state is not None:
        query = query.where(documents.c.state == state)
    if match is not None:
        query = query.where(_matches(match))
    age = tuple_(documents.c.created_at, documents.c.id)
    if after is not None:
        last = documents.alias()
        query = query.where(
            age < select(last.c.created_at, last.c.id).where(last.c.id == after).scalar_subquery()
        )
    query = query.order_by(documents.c.created_at.desc(), documents.c.id.desc()).limit(limit)
    return [_document(row) for row in await connection.execute(query)]


def _matches(text: str) -> ColumnElement[bool]:
    named, digits = documents.c.name == text, text.replace("-", "").lower()
    if not _ID_BEGINS.fullmatch(digits):
        return named
    first, last = (UUID(digits.ljust(32, end)) for end in "0f")
    return or_(named, documents.c.id.between(first, last))


async def remove(connection: AsyncConnection, tenant: UUID, document: UUID) -> bool:
    """Delete a document and its chunks, also from the statistics; False if there is none."""
    found = await find(connection, tenant, document)
    if found is None:
        return False
    # In this order, as everybody: first the document, then the collection.
    await connection.execute(select(documents.c.id).filter_by(id=document).with_for_update())
    await terms.lock(connection, found.collection_id)
    gone = await take_out(connection, [document])
    await terms.settle(connection, found.collection_id)
    return gone == 1


async def take_out(connection: AsyncConnection, gone: Sequence[UUID]) -> int:
    """Delete documents that are held, as is their collection, which is settled afterwards."""
    for document in gone:
        await terms.unindex(connection, document)
    query = documents.delete().where(documents.c.id.in_(gone))
    return (await connection.execute(query)).rowcount


_OLDER = """
    SELECT o.id FROM millrace.documents n
      JOIN millrace.documents o ON o.collection_id = n.collection_id AND o.name = n.name
     WHERE n.id = :document AND n.replaces AND (o.created_at, o.id) {} (n.created_at, n.id)
"""
_HOLD_OLDER = text(f"""
    SELECT 1 FROM millrace.documents WHERE id IN ({_OLDER.format("<=")}) ORDER BY id FOR UPDATE
""")
_HELD_OLDER = text(_OLDER.format("<"))


async def hold_older(connection: AsyncConnection, document: UUID) -> list[UUID]:
    """Lock the document and those that it replaces, which are returned; none if it does not.

    Before anything else is locked: everybody takes documents in the order of their ids, and then
    their collection.
    """
    await connection.execute(_HOLD_OLDER, {"document": document})
    return list((await connection.execute(_HELD_OLDER, {"document": document})).scalars())


async def remove_older(connection: AsyncConnection, newer: StoredDocument) -> None:
    """Delete what a document replaces that is ready."""
    if older := await hold_older(connection, newer.id):
        await terms.lock(connection, newer.collection_id)
        await take_out(connection, older)
        await terms.settle(connection, newer.collection_id)


async def body(connection: AsyncConnection, document: UUID) -> bytes | None:
    """Its content; None if there is no such document, or its URL was not fetched yet."""
    query = select(document_bodies.c.body).filter_by(document_id=document)
    content: bytes | None = (await connection.execute(query)).scalar_one_or_none()
    return content


_RETRY = text("""
    UPDATE millrace.documents
       SET state = 'waiting', stage = NULL, tries = 0, error = NULL, available_at = now(),
           updated_at = now()
     WHERE id = :document AND tenant_id = :tenant AND state = 'failed'
""")


async def retry(connection: AsyncConnection, tenant: UUID, document: UUID) -> bool:
    """Somebody asks again for a document that failed; False if it did not fail."""
    values = {"document": document, "tenant": tenant}
    return (await connection.execute(_RETRY, values)).rowcount == 1
