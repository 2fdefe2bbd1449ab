"""One document from its content to chunks that can be found: claim, stages, outcome.

The same function runs in a master's process and in a Celery task. What it does is written as it
goes, fenced by the attempt; so it may be killed anywhere, and run twice, without harm.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final
from uuid import UUID

import structlog

from bus import tracing
from db import claims
from db.claims import Fenced
from db.engine import create_engine
from master.metrics.ingests import ingests_total
from master.outages import is_outage, said
from master.retrieval.embedders.pool import Embedders
from master.retrieval.failures import Failure, failure_of, lost_too_often, pause_seconds
from master.retrieval.parsing.parser_process import ParserProcess
from master.retrieval.stages import Attempt, Ingestion, begin, run
from master.settings import IngestSettings
from queue_schemas.registry import Registry

log = structlog.get_logger(__name__)

_RENEWALS: Final = 3
"""In the time of one lease."""
_GRACE_SECONDS: Final = 1.0


class Outcome(StrEnum):
    """How an attempt ended."""

    READY = "ready"
    FAILED = "failed"
    AGAIN = "again"
    NOT_OURS = "not_ours"
    """Not due, or somebody else's, which may also be found out on the way."""


for _outcome in Outcome:
    ingests_total.labels(_outcome.value)  # 0 and not missing


def pool_size(at_once: int) -> int:
    """Connections for so many documents: to work, to renew, and one more to make an index."""
    return 2 * at_once + 1


@asynccontextmanager
async def ingestion(
    settings: IngestSettings, registry: Callable[[], Registry], name: str = "millrace ingest"
) -> AsyncGenerator[Ingestion]:
    """What a process needs that only ingests."""
    url = settings.database_url.get_secret_value()
    engine = create_engine(url, pool_size=pool_size(at_once=1), name=name)
    embedders = Embedders(registry)
    try:
        async with ParserProcess() as parser:
            yield Ingestion(engine, parser, embedders, settings)
    finally:
        await embedders.aclose()
        await engine.dispose()


async def due(work: Ingestion, limit: int) -> list[tuple[UUID, UUID]]:
    """Tenant and id of the documents that wait and are due, oldest first, of all tenants."""
    async with work.engine.connect() as connection:
        return await claims.waiting(connection, limit)


async def ingest(work: Ingestion, tenant: UUID, document: UUID) -> Outcome:
    """Ingest one document, if it is due. Raises only what a database that is away raises."""
    with tracing.span("ingest", document=document) as span:
        outcome = await _ingest(work, tenant, document)
        span.note(outcome=outcome)
    ingests_total.labels(outcome.value).inc()
    return outcome


async def _ingest(work: Ingestion, tenant: UUID, document: UUID) -> Outcome:
    attempt = await begin(work, tenant, document)
    if attempt is None:
        return Outcome.NOT_OURS
    if attempt.document.tries > work.settings.ingest_max_attempts:
        return await _settle(attempt, lost_too_often(attempt.document.tries - 1))
    try:
        await _while_ours(attempt)
    except Fenced:
        log.info("ingest.lost", document=str(document), attempt=attempt.document.attempt)
        return Outcome.NOT_OURS
    except asyncio.CancelledError:
        await asyncio.shield(_give_back(attempt))
        raise
    except Exception as error:
        if await _redone(attempt):
            return Outcome.AGAIN
        failure = failure_of(error, attempt.collection.name)
        if failure.status == 500:
            log.error("ingest.crashed", document=str(document), exc_info=error)
        return await _settle(attempt, failure, said(error))
    return Outcome.READY


async def _while_ours(attempt: Attempt) -> None:
    """Run the stages, and renew the lease meanwhile. Raises Fenced when it is lost."""
    running = asyncio.create_task(run(attempt), name=f"stages of {attempt.document.id}")
    pause = attempt.work.settings.ingest_lease_seconds / _RENEWALS
    try:
        while not (await asyncio.wait({running}, timeout=pause))[0]:
            if not await _renew(attempt):
                # Lost; or just published, which the renewal had to wait for.
                await asyncio.wait({running}, timeout=_GRACE_SECONDS)
                break
        if not running.done():
            raise Fenced
        running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _renew(attempt: Attempt) -> bool:
    """Keep the lease; False if the attempt is over. Without a database nobody can say."""
    try:
        async with attempt.transaction() as connection:
            return await claims.renew(
                connection,
                attempt.document.id,
                attempt.document.attempt,
                attempt.work.settings.ingest_lease_seconds,
            )
    except Exception as error:
        if not is_outage(error):
            raise
        log.warning("ingest.outage", document=str(attempt.document.id), error=said(error))
        return True


async def _settle(attempt: Attempt, failure: Failure, cause: str = "") -> Outcome:
    """Write how the attempt ended."""
    settings, document = attempt.work.settings, attempt.document
    again = failure.transient and document.tries < settings.ingest_max_attempts
    error = failure.as_json()
    async with attempt.transaction() as connection:
        if again:
            pause = pause_seconds(document.tries, settings.ingest_retry_seconds)
            moved = await claims.again(connection, document.id, document.attempt, pause, error)
        else:
            moved = await claims.fail(connection, document.id, document.attempt, error)
    if not moved:
        return Outcome.NOT_OURS
    event = "ingest.again" if again else "ingest.failed"
    log.info(event, document=str(document.id), code=failure.code, cause=cause)
    return Outcome.AGAIN if again else Outcome.FAILED


async def _redone(attempt: Attempt) -> bool:
    """Give it back if the settings it was cut or embedded by were changed meanwhile."""
    document = attempt.document
    async with attempt.transaction() as connection:
        if not await claims.outdated(connection, document.id):
            return False
        if not await claims.again(connection, document.id, document.attempt, 0.0, None):
            return False
    log.info("ingest.outdated", document=str(document.id), attempt=document.attempt)
    return True


async def _give_back(attempt: Attempt) -> None:
    """This process ends: somebody else may begin at once, and go on where this one was."""
    try:
        async with attempt.transaction() as connection:
            await claims.again(connection, attempt.document.id, attempt.document.attempt, 0.0, None)
    except Exception as error:  # its lease runs out all the same
        log.warning("ingest.kept", document=str(attempt.document.id), error=said(error))
