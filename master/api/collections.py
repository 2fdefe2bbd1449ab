"""`/v1/collections`: how documents are cut, embedded and searched."""

import re
import time
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request

from db import collections
from db.collections import Collection, UnknownLanguage
from db.corpus import Strategy
from db.tenancy import as_tenant
from master.api import errors, outages
from master.api.bodies import parsed
from master.api.corpus_answers import CollectionAnswer, CollectionList, Deleted, collection
from master.api.corpus_bodies import (
    CollectionChange,
    CollectionRequest,
    CollectionSettings,
    check_agrees,
    embedding_model,
    new_collection,
)
from master.api.corpus_writes import written
from master.api.openapi import request_body, success
from master.api.state import ring, running
from master.api.strict_json import read_json
from master.planning.question import COLLECTION_NAME
from master.running import Running

router = APIRouter(prefix="/v1/collections", tags=["Documents"])

_FAILURES = (401, 404, 503)
_BODY_FAILURES = (400, 401, 404, 408, 413, 415, 503)


@router.get("", response_model=None, responses=success(CollectionList, 401, 503))
async def list_collections(request: Request) -> dict[str, Any]:
    """Your collections, with their documents counted."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    with outages.answered():
        async with as_tenant(master.engine, key.tenant) as connection:
            found = await collections.of(connection, key.tenant)
    return {"object": "list", "data": [collection(each) for each in found]}


@router.post(
    "",
    response_model=None,
    responses=success(CollectionAnswer, 409, *_BODY_FAILURES),
    openapi_extra=request_body(CollectionRequest),
)
async def make_collection(request: Request) -> dict[str, Any]:
    """Make a collection. One that is there already with the same settings is as good."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    body = parsed(CollectionRequest, await read_json(request))
    wanted = new_collection(master.registry(), body.name, body, body.dense_weight)
    try:
        made = await written(
            master,
            key.tenant,
            lambda connection: collections.ensure(connection, key.tenant, wanted),
        )
    except UnknownLanguage as unknown:
        raise errors.invalid_value(str(unknown), "language") from None
    check_agrees(made, body)
    return collection(await _find(master, key.tenant, body.name))


@router.get("/{name}", response_model=None, responses=success(CollectionAnswer, *_FAILURES))
async def show_collection(name: str, request: Request) -> dict[str, Any]:
    """A collection of yours."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    return collection(await _find(master, key.tenant, name))


@router.patch(
    "/{name}",
    response_model=None,
    responses=success(CollectionAnswer, *_BODY_FAILURES),
    openapi_extra=request_body(CollectionChange),
)
async def change_collection(name: str, request: Request) -> dict[str, Any]:
    """Change settings. All but `dense_weight` have the documents cut and embedded anew.

    Until a document is done, what is stored of it is found as before.
    """
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    body = parsed(CollectionChange, await read_json(request))
    stored = await _find(master, key.tenant, name)
    if body.model_fields_set:
        await _change(master, stored, body, body.dense_weight)
    return collection(await _find(master, key.tenant, name))


@router.post(
    "/{name}/reindex", response_model=None, responses=success(CollectionAnswer, *_FAILURES)
)
async def reindex_collection(name: str, request: Request) -> dict[str, Any]:
    """Have all documents cut and embedded anew, with the settings as they are."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    stored = await _find(master, key.tenant, name)
    # Named, although it stays the same: its vectors may have another dimension now.
    await _change(master, stored, CollectionSettings(embedding_model=stored.embedding_model), None)
    return collection(await _find(master, key.tenant, name))


@router.delete("/{name}", response_model=None, responses=success(Deleted, *_FAILURES))
async def delete_collection(name: str, request: Request) -> dict[str, Any]:
    """Delete a collection of yours with all of its documents."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    _check_name(name)
    removed = await written(
        master, key.tenant, lambda connection: collections.remove(connection, key.tenant, name)
    )
    if not removed:
        raise errors.not_found("this collection")
    return {"id": name, "object": "collection", "deleted": True}


async def _change(
    master: Running, stored: Collection, said: CollectionSettings, dense_weight: float | None
) -> None:
    model = _model(master, stored, said)

    async def change(connection: AsyncConnection) -> Collection | None:
        return await collections.change(
            connection,
            stored.tenant,
            stored.name,
            embedding_model=model,
            strategy=said.strategy,
            chunking=said.chunking.chosen() if said.chunking else None,
            language=said.language,
            dense_weight=dense_weight,
        )

    try:
        await written(master, stored.tenant, change)
    except UnknownLanguage as unknown:
        raise errors.invalid_value(str(unknown), "language") from None
    master.announce([])


def _model(master: Running, stored: Collection, said: CollectionSettings) -> str | None:
    """The model to change to; None if it stays. Raises 400 or 404."""
    strategy = said.strategy or stored.strategy
    if said.embedding_model is not None and strategy is Strategy.SPARSE:
        message = "a sparse collection has no vectors: say strategy hybrid or dense as well"
        raise errors.invalid_value(message, "embedding_model")
    is_missing = strategy is not Strategy.SPARSE and stored.embedding_model is None
    if said.embedding_model is None and not is_missing:
        return None
    model = embedding_model(master.registry(), said.embedding_model)
    if model is None:
        message = f"{strategy} needs an embedding model, and models.yaml has none"
        raise errors.invalid_value(message, "strategy")
    return model


async def _find(master: Running, tenant: UUID, name: str) -> Collection:
    _check_name(name)
    with outages.answered():
        async with as_tenant(master.engine, tenant) as connection:
            found = await collections.find(connection, tenant, name, counted=True)
    if found is None:
        raise errors.not_found("this collection")
    return found


def _check_name(name: str) -> None:
    """What cannot be a name gets the same answer as one that nobody has."""
    if not re.fullmatch(COLLECTION_NAME, name):
        raise errors.not_found("this collection")
