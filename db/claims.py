"""Attempts at documents: claimed, renewed, ended. Every move is a conditional update.

Who runs a document holds a number, its attempt. Each claim makes a higher one, so whoever lost
its lease can write nothing any more. Only the database's clock counts. Except for `waiting`, all
functions want a connection of `tenancy.as_tenant`.
"""

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import cast, func, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import documents
from db.corpus import document_bodies
from db.corpus import documents as table
from db.documents import StoredDocument
from db.models import sql_list
from queue_schemas.states import DOCUMENT_MOVES, DocumentStage, DocumentState, sources


class Fenced(RuntimeError):
    """The attempt is over: the document was claimed again, ended, reindexed or deleted."""


class Outdated(RuntimeError):
    """The collection's settings were changed since the document was claimed."""


class Progress(TypedDict, total=False):
    """What an attempt tells. `timings` (ms by stage) and `flags` are added to those there."""

    stage: DocumentStage
    page_count: int | None
    chunk_count: int
    embedded_count: int
    timings: Mapping[str, float]
    flags: Mapping[str, int]


_DUE = "(state = 'waiting' AND available_at <= now() OR state = 'running' AND lease_until < now())"
_WAITING = text(f"""
    SELECT tenant_id, id FROM millrace.documents WHERE {_DUE}
     ORDER BY available_at LIMIT :limit
""")


async def waiting(connection: AsyncConnection, limit: int) -> list[tuple[UUID, UUID]]:
    """(tenant, document) pairs that are due, oldest first. Wants the owner's connection."""
    rows = await connection.execute(_WAITING, {"limit": limit})
    return [(tenant, document) for tenant, document in rows]


_CLAIMABLE = f"""
    id = :document AND tenant_id = :tenant
    AND state IN ({sql_list(sources(DOCUMENT_MOVES, DocumentState.RUNNING))}) AND {_DUE}
"""
_REVISION = "(SELECT c.revision FROM millrace.collections c WHERE c.id = collection_id)"
# Drafts of an earlier attempt are of no use if the settings have changed since.
_CLAIM = text(f"""
    WITH outdated AS (
        DELETE FROM millrace.drafts WHERE document_id = (
            SELECT id FROM millrace.documents WHERE {_CLAIMABLE} AND revision <> {_REVISION})
    )
    UPDATE millrace.documents
       SET state = 'running', stage = NULL, attempt = attempt + 1, tries = tries + 1,
           lease_until = now() + make_interval(secs => :lease), updated_at = now(),
           revision = {_REVISION}
     WHERE {_CLAIMABLE}
""")


async def claim(
    connection: AsyncConnection, tenant: UUID, document: UUID, lease_seconds: float
) -> StoredDocument | None:
    """Begin an attempt; None if it is not due, somebody has it, or there is no such document."""
    values = {"document": document, "tenant": tenant, "lease": lease_seconds}
    if (await connection.execute(_CLAIM, values)).rowcount == 0:
        return None
    return await documents.find(connection, tenant, document)


_OUTDATED = text(f"""
    SELECT revision <> {_REVISION} FROM millrace.documents WHERE id = :document
""")


async def outdated(connection: AsyncConnection, document: UUID) -> bool:
    """Whether its collection's settings were changed since it was claimed."""
    return bool(await connection.scalar(_OUTDATED, {"document": document}))


async def renew(
    connection: AsyncConnection,
    document: UUID,
    attempt: int,
    lease_seconds: float,
    **progress: Unpack[Progress],
) -> bool:
    """Keep the lease and tell the progress; False if the attempt is over."""
    values: dict[str, Any] = {**progress, "updated_at": func.now()}
    values["lease_until"] = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds)
    for name in {"timings", "flags"} & progress.keys():
        values[name] = table.c[name].op("||")(cast(values[name], JSONB))
    query = (
        update(table)
        .filter_by(id=document, attempt=attempt, state=DocumentState.RUNNING)
        .values(values)
    )
    return (await connection.execute(query)).rowcount == 1


_RUNNING = "id = :document AND attempt = :attempt AND state = 'running'"
_AGAIN = text(f"""
    UPDATE millrace.documents
       SET state = 'waiting', stage = NULL, lease_until = NULL, error = CAST(:error AS jsonb),
           tries = tries - CASE WHEN CAST(:error AS jsonb) IS NULL THEN 1 ELSE 0 END,
           available_at = now() + make_interval(secs => :delay), updated_at = now()
     WHERE {_RUNNING}
""")


async def again(
    connection: AsyncConnection,
    document: UUID,
    attempt: int,
    delay_seconds: float,
    error: Mapping[str, Any] | None,
) -> bool:
    """End the attempt; the document waits for another. False if the attempt was over.

    Without an error it is only given back, and not counted as a try.
    """
    values = {"document": document, "attempt": attempt, "delay": delay_seconds}
    values["error"] = None if error is None else to_json(error).decode()
    return (await connection.execute(_AGAIN, values)).rowcount == 1


_FAIL = text(f"""
    UPDATE millrace.documents
       SET state = 'failed', lease_until = NULL, error = CAST(:error AS jsonb), updated_at = now()
     WHERE {_RUNNING}
""")


async def fail(
    connection: AsyncConnection, document: UUID, attempt: int, error: Mapping[str, Any]
) -> bool:
    """End the attempt for good; `stage` says where. False if the attempt was over."""
    values = {"document": document, "attempt": attempt, "error": to_json(error).decode()}
    return (await connection.execute(_FAIL, values)).rowcount == 1


_NOTE_TIMINGS = text("""
    UPDATE millrace.documents SET timings = timings || CAST(:timings AS jsonb)
     WHERE id = :document AND attempt = :attempt AND state = 'ready'
""")


async def note_timings(
    connection: AsyncConnection, document: UUID, attempt: int, timings: Mapping[str, float]
) -> None:
    """Add how long its last stage took (ms) to a document that was just published."""
    values = {"document": document, "attempt": attempt, "timings": to_json(timings).decode()}
    await connection.execute(_NOTE_TIMINGS, values)


async def hold(connection: AsyncConnection, document: UUID, attempt: int) -> StoredDocument:
    """Lock the document for the rest of the transaction. Raises Fenced if the attempt is over."""
    query = documents.whole().where(
        table.c.id == document,
        table.c.attempt == attempt,
        table.c.state == DocumentState.RUNNING,
    )
    held = await documents.one(connection, query.with_for_update(of=table, key_share=True))
    if held is None:
        raise Fenced(f"attempt {attempt} at document {document} is over")
    return held


async def keep_body(
    connection: AsyncConnection, document: UUID, attempt: int, body: bytes, media_type: str | None
) -> None:
    """Store what was fetched. Raises Fenced."""
    held = await hold(connection, document, attempt)
    content = {"document_id": document, "tenant_id": held.tenant, "body": body}
    stored = insert(document_bodies).values(content)
    same = [document_bodies.c.document_id]
    await connection.execute(stored.on_conflict_do_update(index_elements=same, set_={"body": body}))
    told = {"byte_count": len(body), "media_type": media_type or held.media_type}
    await connection.execute(update(table).filter_by(id=document).values(told))
