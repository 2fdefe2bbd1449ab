"""`/v1/documents`: send documents, see where they stand, follow one, delete or retry it."""

import time
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from db import collections, documents
from db.collections import UnknownLanguage
from db.documents import NewDocument, StoredDocument
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api.corpus_answers import Deleted, Document, DocumentList, document
from master.api.corpus_bodies import COLLECTION_NAME, DocumentSettings, check_agrees, new_collection
from master.api.document_events import DocumentEvents
from master.api.openapi import documents_body, event_stream, failures, success
from master.api.state import ring, running
from master.api.uploads import Incoming, read_documents
from master.running import Running
from queue_schemas.states import DocumentState

router = APIRouter(prefix="/v1/documents", tags=["Documents"])

_FAILURES = (401, 404, 503)
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
    said, incoming = await read_documents(request, master.settings)
    with outages.answered():
        stored = await _store(master, key.tenant, said, incoming)
    waiting = [each.id for each, _ in stored if each.state is DocumentState.WAITING]
    master.announce((key.tenant, identity) for identity in waiting)
    data = [document(each) | {"duplicate": not created} for each, created in stored]
    return JSONResponse({"object": "list", "data": data, "has_more": False}, status_code=202)


async def _store(
    master: Running, tenant: UUID, said: DocumentSettings, incoming: list[Incoming]
) -> list[tuple[StoredDocument, bool]]:
    wanted = new_collection(master.registry(), said.collection, said)
    async with as_tenant(master.engine, tenant) as connection:
        try:
            collection = await collections.ensure(connection, tenant, wanted)
        except UnknownLanguage as unknown:
            raise errors.invalid_value(str(unknown), "language") from None
        check_agrees(collection, said)
        return [
            await documents.add(
                connection,
                tenant,
                NewDocument(
                    collection=collection.id,
                    name=each.name,
                    origin=each.origin,
                    digest=each.digest,
                    url=each.url,
                    media_type=each.media_type,
                    metadata=said.metadata,
                ),
                each.body,
            )
            for each in incoming
        ]


@router.get("", response_model=None, responses=success(DocumentList, 400, *_FAILURES))
async def list_documents(
    request: Request,
    collection: Annotated[str | None, Query(pattern=COLLECTION_NAME)] = None,
    state: DocumentState | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
) -> dict[str, Any]:
    """Documents of yours, newest first."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    last = _identity(after) if after is not None else None
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            if last and await documents.find(connection, key.tenant, last) is None:
                raise errors.not_found("the document `after`", "after")
            found = await documents.page(
                connection,
                key.tenant,
                collection=collection,
                state=state,
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
    return document(await _find(master, key.tenant, _identity(document_id)))


@router.get(
    "/{document_id}/events",
    response_model=None,
    responses=event_stream("Events `progress`; the last one is `ready` or `failed`", *_FAILURES),
)
async def follow_document(document_id: str, request: Request) -> Response:
    """Follow a document of yours until it is ready or has failed."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    stored = await _find(master, key.tenant, _identity(document_id))
    return DocumentEvents(master, stored)


@router.delete("/{document_id}", response_model=None, responses=success(Deleted, *_FAILURES))
async def delete_document(document_id: str, request: Request) -> dict[str, Any]:
    """Delete a document of yours; from then on nothing of it is found."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = _identity(document_id)
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            removed = await documents.remove(connection, key.tenant, identity)
    if not removed:
        raise errors.not_found("this document")
    return {"id": str(identity), "object": "document", "deleted": True}


@router.post(
    "/{document_id}/retry", response_model=None, responses=success(Document, 409, *_FAILURES)
)
async def retry_document(document_id: str, request: Request) -> dict[str, Any]:
    """Have a document that failed ingested again."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    identity = _identity(document_id)
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            moved = await documents.retry(connection, key.tenant, identity)
    stored = await _find(master, key.tenant, identity)
    if not moved:
        message = f"only a document that failed can be retried; this one is {stored.state}"
        raise errors.ApiError(409, "not_failed", message)
    master.announce([(key.tenant, identity)])
    return document(stored)


async def _find(master: Running, tenant: UUID, identity: UUID) -> StoredDocument:
    with outages.answered():
        async with as_tenant(master.engine, tenant) as connection:
            stored = await documents.find(connection, tenant, identity)
    if stored is None:
        raise errors.not_found("this document")
    return stored


def _identity(text: str) -> UUID:
    """A malformed id gets the same answer as an unknown one."""
    try:
        return UUID(text)
    except ValueError:
        raise errors.not_found("this document") from None
