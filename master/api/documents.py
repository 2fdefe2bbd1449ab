"""`/v1/documents`: send documents, see where they stand, follow one, delete or retry it."""

import time
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from db import collections, documents
from db.collections import UnknownLanguage
from db.documents import NewDocument, StoredDocument
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api.bodies import warn_of
from master.api.corpus_answers import Deleted, Document, DocumentList, document
from master.api.corpus_bodies import DocumentSettings, check_agrees, new_collection
from master.api.corpus_writes import written
from master.api.document_events import DocumentEvents
from master.api.openapi import documents_body, event_stream, failures, success
from master.api.state import ring, running, upload_room
from master.api.upload_room import bytes_of
from master.api.uploads import Incoming, read_documents
from master.planning.question import COLLECTION_NAME
from master.running import Running
from queue_schemas.states import DocumentState

router = APIRouter(prefix="/v1/documents", tags=["Documents"])

_FAILURES = (401, 404, 503)
_LISTED_BY = frozenset({"collection", "state", "limit", "after", "match"})
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": DocumentList, "description": "Stored, and soon ingested"},
    **failures(400, 401, 404, 408, 409, 413, 415, 503),
}


@router.post(
    "",
    status_code=202,
    response_model=None,
    responses=_ACCEPTED,
    openapi_extra=documents_body(),
)
async def send_documents(request: Request) -> Response:
    """Have files (multipart), a text or a URL (JSON) ingested into a collection.

    All of them are stored, or none. The same content is not ingested twice.
    """
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    async with upload_room(request).of(bytes_of(request, master.settings.max_upload_bytes)):
        said, incoming = await read_documents(request, master.settings)
        stored = await store(master, key.tenant, said, incoming)
    data = [document(each) | {"duplicate": not created} for each, created in stored]
    return JSONResponse({"object": "list", "data": data, "has_more": False}, status_code=202)


async def store(
    master: Running, tenant: UUID, said: DocumentSettings, incoming: list[Incoming]
) -> list[tuple[StoredDocument, bool]]:
    """All of them, or none, as they were sent; each with whether it is new. They are announced.

    Raises `ApiError` 400, 404, 409 or 503.
    """
    stored = await _stored(master, tenant, said, incoming)
    waiting = [each.id for each, _ in stored if each.state is DocumentState.WAITING]
    master.announce((tenant, identity) for identity in waiting)
    return stored


async def _stored(
    master: Running, tenant: UUID, said: DocumentSettings, incoming: list[Incoming]
) -> list[tuple[StoredDocument, bool]]:
    wanted = new_collection(master.registry(), said.collection, said)

    async def add_all(connection: AsyncConnection) -> list[tuple[StoredDocument, bool]]:
        try:
            collection = await collections.ensure(connection, tenant, wanted)
        except UnknownLanguage as unknown:
            raise errors.invalid_value(str(unknown), "language") from None
        check_agrees(collection, said)
        stored = {
            place: await documents.add(
                connection, tenant, _new(collection.id, said, incoming[place]), incoming[place].body
            )
            for place in _in_turn(incoming)
        }
        for each, _ in stored.values():
            if said.replace and each.state is DocumentState.READY:
                await documents.remove_older(connection, each)
        return [stored[place] for place in range(len(incoming))]

    return await written(master, tenant, add_all)


def _in_turn(incoming: list[Incoming]) -> list[int]:
    """The same order for whoever sends the same; of one name, the last one sent is the newest."""
    places = range(len(incoming))
    if len({each.name for each in incoming}) < len(incoming):
        return list(places)
    return sorted(places, key=lambda place: incoming[place].digest)


def _new(collection: UUID, said: DocumentSettings, sent: Incoming) -> NewDocument:
    return NewDocument(
        collection=collection,
        name=sent.name,
        origin=sent.origin,
        digest=sent.digest,
        url=sent.url,
        media_type=sent.media_type,
        metadata=said.metadata,
        replaces=said.replace,
    )


@router.get("", response_model=None, responses=success(DocumentList, 400, *_FAILURES))
async def list_documents(
    request: Request,
    collection: Annotated[str | None, Query(pattern=COLLECTION_NAME)] = None,
    state: DocumentState | None = None,
    match: Annotated[
        str | None,
        Query(
            pattern=r"^[^\x00]*$",
            description="Its name, or at least 6 characters that its id begins with.",
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
) -> dict[str, Any]:
    """Documents of yours, newest first."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    warn_of(sorted(request.query_params.keys() - _LISTED_BY), strict=True)
    last = identity_of(after) if after is not None else None
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            if last and await documents.find(connection, key.tenant, last) is None:
                raise errors.not_found("the document `after`", "after")
            found = await documents.page(
                connection,
                key.tenant,
                collection=collection,
                state=state,
                match=match,
                limit=limit + 1,
                after=last,
            )
    data = [document(each) for each in found[:limit]]
    return {"object": "list", "data": data, "has_more": len(found) > limit}


@router.get("/{document_id}", response_model=None, responses=success(Document, *_FAILURES))
async def show_document(document_id: str, request: Request) -> dict[str, Any]:
    """Where a document of yours stands: state, stage, progress, times, what was odd about it."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    return document(await find(master, key.tenant, identity_of(document_id)))


@router.get(
    "/{document_id}/events",
    response_model=None,
    responses=event_stream("Events `progress`; the last one is `ready` or `failed`", *_FAILURES),
)
async def follow_document(document_id: str, request: Request) -> Response:
    """Follow a document of yours until it is ready or has failed."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    stored = await find(master, key.tenant, identity_of(document_id))
    return DocumentEvents(master, stored)


@router.delete("/{document_id}", response_model=None, responses=success(Deleted, *_FAILURES))
async def delete_document(document_id: str, request: Request) -> dict[str, Any]:
    """Delete a document of yours; from then on nothing of it is found."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = identity_of(document_id)
    await remove(master, key.tenant, identity)
    return {"id": str(identity), "object": "document", "deleted": True}


async def remove(master: Running, tenant: UUID, identity: UUID) -> None:
    """Delete a document of this tenant. Raises `ApiError` 404 or 503."""
    removed = await written(
        master, tenant, lambda connection: documents.remove(connection, tenant, identity)
    )
    if not removed:
        raise errors.not_found("this document")


@router.post(
    "/{document_id}/retry", response_model=None, responses=success(Document, 409, *_FAILURES)
)
async def retry_document(document_id: str, request: Request) -> dict[str, Any]:
    """Have a document that failed ingested again."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    return document(await retry(master, key.tenant, identity_of(document_id)))


async def retry(master: Running, tenant: UUID, identity: UUID) -> StoredDocument:
    """A document that failed, waiting again and announced. Raises `ApiError` 404, 409 or 503."""
    moved = await written(
        master, tenant, lambda connection: documents.retry(connection, tenant, identity)
    )
    stored = await find(master, tenant, identity)
    if not moved:
        message = f"only a document that failed can be retried; this one is {stored.state}"
        raise errors.ApiError(409, "not_failed", message)
    master.announce([(tenant, identity)])
    return stored


async def find(master: Running, tenant: UUID, identity: UUID) -> StoredDocument:
    """A document of this tenant. Raises `ApiError` 404 or 503."""
    with outages.answered():
        async with as_tenant(master.engine, tenant) as connection:
            stored = await documents.find(connection, tenant, identity)
    if stored is None:
        raise errors.not_found("this document")
    return stored


def identity_of(text: str) -> UUID:
    """A malformed id gets the same answer as an unknown one."""
    try:
        return UUID(text)
    except ValueError:
        raise errors.not_found("this document") from None
