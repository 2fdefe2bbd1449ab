"""One document as server-sent events: `progress` with each change, until it is ready or failed."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

import structlog
from starlette.responses import StreamingResponse

from db import documents
from db.documents import StoredDocument
from db.tenancy import as_tenant
from master.api import errors, sse
from master.api.corpus_answers import document
from master.outages import is_outage
from master.running import Running
from queue_schemas.states import DocumentState

log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 0.5
_ENDED: Final = frozenset({DocumentState.READY, DocumentState.FAILED})


class DocumentEvents(StreamingResponse):
    """Looks at the row now and then: whoever ingests it may be any process."""

    def __init__(self, master: Running, stored: StoredDocument) -> None:
        super().__init__(_events(master, stored), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


async def _events(master: Running, stored: StoredDocument) -> AsyncGenerator[bytes]:
    shown, said_at = None, time.monotonic()
    while True:
        if (now := document(stored)) != shown:
            shown, said_at = now, time.monotonic()
            yield sse.frame(now, event="progress")
        if stored.state in _ENDED:
            return
        if time.monotonic() - said_at >= master.settings.keep_alive_seconds:
            said_at = time.monotonic()
            yield sse.PING
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            stored = await _look(master, stored)
        except errors.ApiError as failure:
            yield sse.frame(failure.envelope(), event="interrupted")
            return


async def _look(master: Running, stored: StoredDocument) -> StoredDocument:
    """The row as it is now. Raises what is said instead of a bare cut."""
    if master.draining:
        raise errors.server_draining()
    try:
        async with as_tenant(master.engine, stored.tenant) as connection:
            found = await documents.find(connection, stored.tenant, stored.id)
    except Exception as error:
        if is_outage(error):
            raise errors.service_unavailable("the database does not answer") from error
        log.error("document_events.crashed", document=str(stored.id), exc_info=error)
        raise errors.server_error() from error
    if found is None:
        raise errors.not_found("this document")
    return found
