"""Documents: collections, what was sent and where it stands, upload, retry and delete."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db import collections, documents
from db.collections import Collection
from db.corpus import Strategy
from db.documents import StoredDocument
from db.tenancy import as_tenant
from master.api import documents as api
from master.api import errors, outages
from master.api.bodies import parsed
from master.api.corpus_answers import document
from master.api.corpus_bodies import DocumentRequest
from master.api.state import running, upload_room
from master.api.upload_room import bytes_of
from master.api.uploads import MOST_FILES, from_json, read_form
from master.console.document_form import settings_of, url_of
from master.console.fields import fields
from master.console.live import live
from master.console.pages import page, rendered
from master.console.remedies import remedy
from master.console.viewer import CSRF_HEADER, Viewer, check_origin, check_token, posted, viewer
from master.retrieval.chunking import Method
from master.retrieval.parsing.formats import SUFFIXES
from master.running import Running
from queue_schemas.states import DocumentStage, DocumentState

router = APIRouter(prefix="/console/documents", include_in_schema=False)

_PATH = "/console/documents"
_SHOWN = 25


@dataclass(frozen=True)
class Wanted:
    """Which documents are looked at."""

    collection: str | None = None
    state: DocumentState | None = None
    match: str | None = None
    after: UUID | None = None

    @property
    def query(self) -> str:
        """The same as a query string, without where the page begins."""
        said = {"collection": self.collection, "state": self.state, "match": self.match}
        return urlencode({name: value for name, value in said.items() if value})


def wanted_of(request: Request) -> Wanted:
    """What the address asks for. Raises 400 or 404."""
    said = {name: value.strip() for name, value in request.query_params.items()}
    state, after = said.get("state"), said.get("after")
    if state and state not in set(DocumentState):
        raise errors.invalid_value(f"state must be one of {', '.join(DocumentState)}", "state")
    return Wanted(
        said.get("collection") or None,
        DocumentState(state) if state else None,
        said.get("match") or None,
        api.identity_of(after) if after else None,
    )


@router.get("")
async def show_documents(request: Request) -> Response:
    """Collections, and documents of yours, newest first."""
    seen = await viewer(request)
    master, wanted = running(request), wanted_of(request)
    found, listed = await _listed(master, seen.tenant, wanted)
    return page(
        request,
        seen,
        "documents.html",
        wanted=wanted,
        collections=found,
        states=list(DocumentState),
        sent=_count(request, "sent"),
        known=_count(request, "known"),
        deleted="deleted" in request.query_params,
        **listed,
        **_choices(master),
    )


def _choices(master: Running) -> dict[str, Any]:
    """What the form of the upload lets people choose from."""
    registry = master.registry()
    return {
        "strategies": list(Strategy),
        "methods": list(Method),
        "models": [model.name for model in registry.embedding_models()],
        "suffixes": ",".join(SUFFIXES),
        "most_files": MOST_FILES,
        "most_bytes": master.settings.max_upload_bytes,
        "most_bytes_each": master.settings.max_document_bytes,
    }


def _count(request: Request, name: str) -> int:
    said = request.query_params.get(name, "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) <= 4 else 0


async def _listed(
    master: Running, tenant: UUID, wanted: Wanted
) -> tuple[list[Collection], dict[str, Any]]:
    """All collections, and what a page of documents shows. Raises 404 or 503."""
    with outages.answered():
        async with as_tenant(master.engine, tenant) as connection:
            if wanted.after and await documents.find(connection, tenant, wanted.after) is None:
                raise errors.not_found("the document `after`", "after")
            found = await documents.page(
                connection,
                tenant,
                collection=wanted.collection,
                state=wanted.state,
                match=wanted.match,
                limit=_SHOWN + 1,
                after=wanted.after,
            )
            all_collections = await collections.of(connection, tenant)
    shown = found[:_SHOWN]
    more = {"after": str(shown[-1].id)} if len(found) > _SHOWN else None
    query = "&".join(filter(None, (wanted.query, urlencode(more)))) if more else None
    rows = {"documents": [_row(each) for each in shown]}
    return all_collections, rows | {"next_url": f"{_PATH}?{query}" if query else None}


def _row(stored: StoredDocument) -> dict[str, Any]:
    """A document as the API has it, with its times as times and what to do about its error."""
    said = document(stored)
    times = {"created_at": stored.created_at, "updated_at": stored.updated_at}
    return {
        **said,
        **times,
        "ready_at": stored.ready_at,
        "remedy": remedy(stored.error, stored.collection),
        "timings": [
            (stage.value, stored.timings[stage] / 1000)
            for stage in DocumentStage
            if stage in stored.timings
        ],
    }


@router.get("/live")
async def follow_documents(request: Request) -> Response:
    """The list as it changes."""
    seen, wanted = await viewer(request), wanted_of(request)
    master = running(request)

    async def render() -> str:
        found, listed = await _listed(master, seen.tenant, wanted)
        return rendered("documents.html", "listed", collections=found, wanted=wanted, **listed)

    return live(request, seen, render, key=("documents", wanted), every_seconds=2.0)


@router.post("")
async def upload(request: Request) -> Response:
    """Files of a form, as `POST /v1/documents` takes them; then the list of their collection."""
    seen = await viewer(request)
    check_origin(request)
    master = running(request)
    said_before = request.headers.get(CSRF_HEADER)
    if said_before is not None:
        check_token(seen, said_before)

    def settings(texts: Mapping[str, str]) -> dict[str, JsonValue]:
        # Before any file is looked into: a form without script has its token inside.
        check_token(seen, said_before or texts.get("csrf", ""))
        return settings_of(texts)

    async with upload_room(request).of(bytes_of(request, master.settings.max_upload_bytes)):
        said, incoming = await read_form(request, master.settings, settings)
        stored = await api.store(master, seen.tenant, said, incoming)
    known = sum(not created for _, created in stored)
    return _to_list(request, said.collection, sent=len(stored), known=known)


@router.post("/url")
async def add_url(request: Request) -> Response:
    """A document that is fetched from the web."""
    seen = await posted(request)
    master = running(request)
    body = parsed(DocumentRequest, url_of(await fields(request)))
    incoming = [await from_json(body, master.settings)]
    [(_, created)] = await api.store(master, seen.tenant, body, incoming)
    return _to_list(request, body.collection, sent=1, known=int(not created))


def _to_list(request: Request, collection: str, **counts: int) -> Response:
    at = f"{_PATH}?{urlencode({'collection': collection, **counts})}"
    if "hx-request" in request.headers:  # a script that sends files cannot see where it is led
        return Response(status_code=204, headers={"HX-Redirect": at})
    return RedirectResponse(at, status_code=303)


@router.get("/{document_id}")
async def show_document(document_id: str, request: Request) -> Response:
    """All about one document."""
    seen = await viewer(request)
    stored = await api.find(running(request), seen.tenant, api.identity_of(document_id))
    return page(request, seen, "document.html", document=_row(stored))


@router.get("/{document_id}/live")
async def follow_document(document_id: str, request: Request) -> Response:
    """Its stages as they come."""
    seen = await viewer(request)
    identity = api.identity_of(document_id)
    render = partial(_document_part, running(request), seen, identity)
    return live(request, seen, render, key=("document", identity))


async def _document_part(master: Running, seen: Viewer, identity: UUID) -> str:
    stored = await api.find(master, seen.tenant, identity)
    return rendered("document.html", "progress", document=_row(stored))


@router.post("/{document_id}/retry")
async def retry(document_id: str, request: Request) -> Response:
    """Have a document that failed ingested again."""
    seen = await posted(request)
    stored = await api.retry(running(request), seen.tenant, api.identity_of(document_id))
    return RedirectResponse(f"{_PATH}/{stored.id}", status_code=303)


@router.post("/{document_id}/delete")
async def delete(document_id: str, request: Request) -> Response:
    """Delete it with all that was stored of it."""
    seen = await posted(request)
    await api.remove(running(request), seen.tenant, api.identity_of(document_id))
    return RedirectResponse(f"{_PATH}?deleted", status_code=303)
