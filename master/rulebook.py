"""The rules in force, as this replica knows them: read at most once a second for each tenant."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

import structlog
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import rules
from db.rules import StoredRule
from db.tenancy import as_tenant
from master.outages import is_outage, said
from master.rules.matching import RuleInForce
from master.rules.rule import Change, Scope

log = structlog.get_logger(__name__)

EVERY_SECONDS = 1.0
"""So long a rule that was changed on another replica may go on here."""
PATIENCE_SECONDS = 5.0
"""A connection that died silently must not hold up all who wait for one read."""
_MOST_TENANTS = 10_000
_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)


@dataclass(frozen=True)
class _Known:
    rules: tuple[RuleInForce, ...]
    until: float


class Rulebook:
    """What rules there are for whoever asks. One read serves all who wait for it."""

    def __init__(
        self,
        engine: AsyncEngine,
        every_seconds: float = EVERY_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._engine = engine
        self._every_seconds = every_seconds
        self._patience_seconds = patience_seconds
        self._known: dict[UUID, _Known] = {}
        self._reading: dict[UUID, asyncio.Task[tuple[RuleInForce, ...]]] = {}
        self._unreadable: set[UUID] = set()

    async def in_force(self, tenant: UUID) -> tuple[RuleInForce, ...]:
        """The tenant's rules in shadow, on trial and active, by name and version.

        While the database is away, those that were known last. Raises its error where none were.
        """
        known = self._known.get(tenant)
        if known is not None and time.monotonic() < known.until:
            return known.rules
        reading = self._reading.get(tenant)
        if reading is None:
            reading = asyncio.create_task(self._read(tenant), name="rulebook")
            reading.add_done_callback(_heard)
            self._reading[tenant] = reading
        # Shielded: others wait for the same read.
        return await asyncio.shield(reading)

    def forget(self, tenant: UUID) -> None:
        """The tenant's rules were changed: what is being read now may be what they were."""
        self._reading.pop(tenant, None)
        known = self._known.get(tenant)
        if known is not None:
            self._known[tenant] = _Known(known.rules, until=0.0)

    async def _read(self, tenant: UUID) -> tuple[RuleInForce, ...]:
        own = asyncio.current_task()
        found: tuple[RuleInForce, ...]
        try:
            async with (
                asyncio.timeout(self._patience_seconds),
                as_tenant(self._engine, tenant) as connection,
            ):
                found = tuple(self._readable(await rules.in_force(connection, tenant)))
        except Exception as error:
            known = self._known.get(tenant)
            if known is None or not is_outage(error):
                raise
            log.warning("rulebook.outage", tenant=str(tenant), error=said(error))
            found = known.rules
        finally:
            is_latest = self._reading.get(tenant) is own
            if is_latest:
                del self._reading[tenant]
        if is_latest:
            if len(self._known) >= _MOST_TENANTS:
                self._known.clear()
            self._known[tenant] = _Known(found, time.monotonic() + self._every_seconds)
        return found

    def _readable(self, stored: Iterable[StoredRule]) -> Iterator[RuleInForce]:
        """The rules that this release understands; of each other one it is said once."""
        for rule in stored:
            try:
                yield _rule(rule)
            except ValidationError as error:
                if rule.id not in self._unreadable:
                    self._unreadable.add(rule.id)
                    why = error.errors(include_url=False, include_input=False)[0]["msg"]
                    log.error("rulebook.unreadable", rule=rule.name, id=str(rule.id), reason=why)


def _rule(stored: StoredRule) -> RuleInForce:
    return RuleInForce(
        id=stored.id,
        name=stored.name,
        version=stored.version,
        scope=Scope.model_validate(stored.scope),
        change=_CHANGE.validate_python(stored.change),
        state=stored.state,
        share=stored.share,
        measured=stored.measured,
    )


def _heard(reading: asyncio.Task[tuple[RuleInForce, ...]]) -> None:
    """Take note of an error for which nobody waits any more."""
    if not reading.cancelled():
        reading.exception()
