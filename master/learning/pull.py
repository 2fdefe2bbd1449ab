"""Pull: ratings of Open WebUI become judgements of our requests, as long as they are there.

A round reads the list from its latest change back to where the last round was, and some more; only
where the numbers of ratings then differ does it compare everything, for what was deleted. Nothing
is read inside a transaction: each page is stored in one of its own, and what is left after some
pages is for the next round, which goes on there. One round goes on at a time; it says so in a row.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from db import openwebui, tenants
from db.openwebui import Source
from db.tenancy import as_tenant
from master.learning.taking import Round, Taking
from master.metrics.loops import Loop, count_failure
from master.openwebui import OpenWebui, OpenWebuiError, Page
from master.outages import Failures
from master.settings import MasterSettings

log = structlog.get_logger(__name__)

_OVERLAP_SECONDS: Final = 120
"""Its clock has whole seconds, its replicas have several, and a change is seen when committed."""
_MOST_PAGES: Final = 50
"""Of one round."""
_MOST_COMPARED: Final = 500
"""Ratings that one round asks for one by one, and that it forgets."""
_HELD_SECONDS: Final = 120.0
"""A round that stores nothing for so long is dead: Open WebUI answers within 30, or does not."""
_AGAIN_SECONDS: Final = 1.0


class NoTenant(Exception):
    """Nobody said whose the ratings are."""


class Overtaken(Exception):
    """The round was taken for dead, and another one goes on."""


async def owner(engine: AsyncEngine, name: str | None) -> UUID:
    """The tenant of that name; without one, the only tenant there is. Raises NoTenant."""
    async with engine.connect() as connection:
        found = await tenants.by_name(connection)
    if name is not None and name in found:
        return found[name]
    if name is not None:
        raise NoTenant(f"there is no tenant {name!r}")
    if len(found) != 1:
        raise NoTenant(f"there are {len(found)} tenants: say which one's the ratings are")
    return next(iter(found.values()))


async def pull(
    engine: AsyncEngine,
    client: OpenWebui,
    tenant: UUID,
    *,
    now: float,
    wait: bool = False,
    pages: int = _MOST_PAGES,
) -> Round | None:
    """One round; None while another process is in one, unless it waits.

    Raises OpenWebuiError, and what the database raises; what was stored before stays.
    """
    work = _Work(engine, client, tenant)
    while (source := await work.begun()) is None:
        if not wait:
            return None
        await asyncio.sleep(_AGAIN_SECONDS)
    try:
        await work.read(source, int(now), pages)
    except Overtaken:
        log.warning("openwebui.overtaken", url=client.url)
        work.round.more = True
    finally:
        await work.end()
    return work.round


@dataclass(frozen=True)
class _Work:
    """One round that goes on."""

    engine: AsyncEngine
    client: OpenWebui
    tenant: UUID
    id: UUID = field(default_factory=uuid4)
    round: Round = field(default_factory=Round)

    async def begun(self) -> Source | None:
        """How far the last round was; None while another one goes on."""
        try:
            async with self._taking() as taking:
                return await openwebui.source(taking.connection, self.tenant, self.client.url)
        except Overtaken:
            return None

    async def end(self) -> None:
        """Let another round begin."""
        async with as_tenant(self.engine, self.tenant) as connection:
            await openwebui.let_go(connection, self.tenant, self.client.url, self.id)

    async def read(self, source: Source, now: int, most: int) -> None:
        """Read at most so many pages, from where the last round was. Raises Overtaken."""
        since, reached, seen = source.watermark - _OVERLAP_SECONDS, source.reached, 0
        first = source.page or 1
        for number in range(first, first + most):
            page = await self.client.page(number)
            seen += page.count
            if reached is None:
                reached = max([source.watermark, *(rating.changed for rating in page.ratings)])
            is_last = _is_last(page, since) or seen >= page.total
            slipped = await self._store(page, None if is_last else number + 1, reached)
            if is_last:
                # Between two pages, what is deleted moves others to the page that was read already.
                await self._finish(number, reached, now, compare=slipped or number > 1)
                return
        self.round.more = True

    async def _store(self, page: Page, going_on: int | None, reached: int) -> bool:
        """Whether there are fewer or more ratings than are remembered then."""
        async with self._taking() as taking:
            await taking.take(page.ratings)
            if going_on is not None:
                await openwebui.paused(
                    taking.connection, self.tenant, self.client.url, going_on, reached
                )
            return page.total != await taking.count()

    async def _finish(self, number: int, reached: int, now: int, *, compare: bool) -> None:
        """All pages were read, up to this one."""
        self.round.more = compare and not await self._compare()
        async with self._taking() as taking:
            where = (taking.connection, self.tenant, self.client.url)
            if self.round.more:
                await openwebui.paused(*where, number, reached)
            else:
                # A time in the future would hide what comes until then.
                await openwebui.pulled(*where, min(reached, now))

    async def _compare(self) -> bool:
        """Find what was deleted, and what slipped from one page to another; False: not yet all."""
        there = await self.client.ids()
        async with self._taking() as taking:
            known = await openwebui.known(taking.connection, self.tenant, self.client.url)
            gone = sorted(known.keys() - there.keys())
            for id_ in gone[:_MOST_COMPARED]:
                await taking.forget(id_, known[id_])
        missed = [
            id_
            for id_, changed in there.items()
            if id_ not in known or known[id_].changed != changed
        ]
        for id_ in missed[:_MOST_COMPARED]:
            rating = await self.client.one(id_)
            async with self._taking() as taking:
                await taking.take([rating] if rating is not None else [])
        return max(len(gone), len(missed)) <= _MOST_COMPARED

    @contextlib.asynccontextmanager
    async def _taking(self) -> AsyncGenerator[Taking]:
        """A transaction, as long as no other round goes on. Raises Overtaken."""
        url = self.client.url
        async with as_tenant(self.engine, self.tenant) as connection:
            if not await openwebui.hold(connection, self.tenant, url, self.id, _HELD_SECONDS):
                raise Overtaken
            taking = Taking(connection, self.tenant, url, self.round)
            yield taking
        taking.committed()


def _is_last(page: Page, since: int) -> bool:
    return not page.ratings or page.ratings[-1].changed < since


@dataclass(frozen=True)
class Puller:
    """The loop of one replica; only one of them is in a round at a time."""

    engine: AsyncEngine
    client: OpenWebui
    tenant: str | None
    """Its name; None: the only one there is."""
    seconds: float

    async def run(self) -> None:
        """Pull until cancelled."""
        failures = Failures(Loop.OPENWEBUI, log)
        while True:
            try:
                await self._round()
            except Exception as error:
                failures.met(error)
            else:
                failures.over()
            await asyncio.sleep(self.seconds)

    async def _round(self) -> None:
        try:
            tenant = await owner(self.engine, self.tenant)
        except NoTenant as error:
            log.warning("openwebui.no_tenant", error=str(error))
            return
        try:
            found = await pull(self.engine, self.client, tenant, now=time.time())
        except OpenWebuiError as error:
            count_failure(Loop.OPENWEBUI)
            log.warning("openwebui.unreadable", url=self.client.url, error=str(error))
            async with as_tenant(self.engine, tenant) as connection:
                await openwebui.failed(connection, tenant, self.client.url, str(error))
            return
        if found is not None and (found.outcomes or found.withdrawn):
            counts = {outcome.value: count for outcome, count in found.outcomes.items()}
            log.info("openwebui.pulled", **counts, withdrawn=found.withdrawn)


@contextlib.asynccontextmanager
async def opened(settings: MasterSettings, engine: AsyncEngine) -> AsyncGenerator[Puller | None]:
    """The puller of a master, where an Open WebUI is set."""
    url, key = settings.openwebui_url, settings.openwebui_api_key
    if url is None or key is None:
        yield None
        return
    async with OpenWebui(url, key.get_secret_value()) as client:
        yield Puller(engine, client, settings.openwebui_tenant, settings.openwebui_seconds)
