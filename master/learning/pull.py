"""Pull: ratings of Open WebUI become judgements of our requests, as long as they are there.

Every rating that was seen is remembered with a digest of what it said, whatever became of it. A
round reads the list from its latest change back to where the last round was, and some more; only
where the numbers of ratings then differ does it compare everything, for what was deleted.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import judgements, openwebui, tenants
from db.openwebui import Known
from db.openwebui_tables import Outcome
from db.tenancy import as_tenant
from master import metrics
from master.batches import is_outage
from master.learning.ratings import judged, own
from master.openwebui import OpenWebui, OpenWebuiError, Rating
from master.settings import MasterSettings

log = structlog.get_logger(__name__)

_OVERLAP_SECONDS: Final = 120
"""Its clock has whole seconds, its replicas have several, and a change is seen when committed."""


class NoTenant(Exception):
    """Nobody said whose the ratings are."""


@dataclass
class Round:
    """What one round found."""

    seen: int = 0
    """Ratings that were looked at."""
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    """Of those that were new or had changed."""
    withdrawn: int = 0
    """Judgements that are gone, because their ratings are."""


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
    engine: AsyncEngine, client: OpenWebui, tenant: UUID, *, now: float, wait: bool = False
) -> Round | None:
    """One round, in one transaction; None while another process is in one, unless it waits.

    Raises OpenWebuiError, and what the database raises, with nothing stored.
    """
    async with as_tenant(engine, tenant) as connection:
        if not await openwebui.hold(connection, tenant, client.url, wait=wait):
            return None
        source = await openwebui.source(connection, tenant, client.url)
        work = _Work(connection, client, tenant)
        since = source.watermark - _OVERLAP_SECONDS
        pages = [page async for page in client.since(since)]
        ratings = [rating for page in pages for rating in page.ratings]
        latest = max([source.watermark, *(rating.changed for rating in ratings)])
        await work.take(ratings)
        # Between two pages, what is deleted moves others to the page that was read already.
        if len(pages) > 1 or pages[-1].total != await work.count():
            await work.compare()
        # A time in the future would hide what comes until then.
        await openwebui.pulled(connection, tenant, client.url, min(latest, int(now)))
    return work.round


def _changed(rating: Rating) -> int:
    return rating.changed


@dataclass(frozen=True)
class _Work:
    """One round that is going on."""

    connection: AsyncConnection
    client: OpenWebui
    tenant: UUID
    round: Round = field(default_factory=Round)

    async def count(self) -> int:
        """How many ratings are remembered."""
        counts = await openwebui.counted(self.connection, self.tenant, self.client.url)
        return sum(counts.values())

    async def take(self, ratings: Sequence[Rating]) -> None:
        """Store what is new or changed. Of two about the same, the later change counts."""
        by_id = {rating.id: rating for rating in sorted(ratings, key=_changed)}
        known = await openwebui.known(self.connection, self.tenant, self.client.url, list(by_id))
        for rating in sorted(by_id.values(), key=_changed):
            self.round.seen += 1
            before = known.get(rating.id)
            if before is None or before.digest != rating.digest:
                await self._judge_anew(rating, before)
            elif before.changed != rating.changed:
                await self._remember(
                    rating, Known(before.digest, rating.changed, before.outcome, before.judgement)
                )

    async def compare(self) -> None:
        """Find what was deleted, and what slipped from one page to another meanwhile."""
        there = await self.client.ids()
        known = await openwebui.known(self.connection, self.tenant, self.client.url)
        for id_ in known.keys() - there.keys():
            await self._gone(id_, known[id_])
        for id_, changed in there.items():
            if id_ not in known or known[id_].changed != changed:
                rating = await self.client.one(id_)
                if rating is not None:
                    await self.take([rating])

    async def _judge_anew(self, rating: Rating, before: Known | None) -> None:
        outcome, judgement = await self._judge(rating)
        outcomes = self.round.outcomes
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        metrics.openwebui_ratings_total.labels(outcome.value).inc()
        await self._remember(rating, Known(rating.digest, rating.changed, outcome, judgement))
        if before is not None and before.judgement not in {None, judgement}:
            await self._withdraw(rating.id, before)

    async def _judge(self, rating: Rating) -> tuple[Outcome, UUID | None]:
        """Store what it says, where it is of an answer of ours to this user."""
        if rating.kind != "rating":
            return Outcome.OTHER, None
        if rating.message is None:
            return Outcome.UNKNOWN, None
        answers = await openwebui.requests_of(self.connection, self.tenant, rating.message)
        requests = own(rating, answers)
        if not requests:
            outcome = Outcome.FOREIGN if answers else Outcome.UNKNOWN
            warn = log.warning if answers else log.info
            warn(
                f"openwebui.{outcome}",
                feedback=rating.id,
                user=rating.user,
                message=rating.message,
            )
            return outcome, None
        said = judged(rating)
        if said is None:
            return Outcome.UNREADABLE, None
        # The rounds of a message's tools end in the answer that was read.
        [(stored, _)] = await judgements.put(self.connection, self.tenant, requests[0], [said])
        return Outcome.STORED, stored.id

    async def _remember(self, rating: Rating, seen: Known) -> None:
        await openwebui.remember(self.connection, self.tenant, self.client.url, rating.id, seen)

    async def _gone(self, id_: str, seen: Known) -> None:
        await self._withdraw(id_, seen)
        await openwebui.forget(self.connection, self.tenant, self.client.url, id_)

    async def _withdraw(self, id_: str, seen: Known) -> None:
        if seen.judgement is not None and await openwebui.withdraw(
            self.connection, self.tenant, self.client.url, id_, seen.judgement
        ):
            self.round.withdrawn += 1


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
        while True:
            try:
                await self._round()
            except Exception as error:
                if not is_outage(error):
                    log.error("openwebui.crashed", exc_info=error)
                else:
                    log.warning("openwebui.outage", error=str(error))
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
