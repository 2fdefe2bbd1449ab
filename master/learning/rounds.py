"""One round of learning for all tenants: trials are looked at, rules are proposed.

The same function runs in a master's loop and in a Celery task.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.protocol import Bus
from db import rollups, rules
from db.rules import StoredRule
from db.tenancy import as_tenant
from master.learning.proposals import WORKFLOW, Proposal, proposals
from master.learning.rulings import tell
from master.learning.settings import LearningSettings
from master.learning.trials import run_trials
from master.metrics.loops import Loop
from master.outages import Failures, is_busy, is_outage

log = structlog.get_logger(__name__)

_OVERLAP_SECONDS: Final = 60.0
"""A vote has the time of its transaction's beginning, and is seen when that has ended."""
_MOST_KNOWN: Final = 1_000
_LOCK_TIMEOUT: Final = "2s"
"""Somebody may hold a tenant's rules for long; the other tenants must not wait for that."""

_ALONE = text("""
    SELECT pg_try_advisory_xact_lock(hashtextextended('millrace.proposals ' || :tenant, 0))
""")
_PATIENCE = text("SELECT set_config('lock_timeout', :timeout, true)")


class Rounds:
    """The rounds of one process: each looks at what was said since the one before.

    The first looks at all that proposals are drawn from: nobody knows when the last one was.
    """

    def __init__(self, settings: LearningSettings) -> None:
        self._settings = settings
        self._looked_at: float | None = None

    async def next(self, engine: AsyncEngine) -> list[StoredRule]:
        """All rules that moved or were made. Raises only what a database that is away raises."""
        now = time.monotonic()
        since = timedelta(days=self._settings.learning_days).total_seconds()
        if self._looked_at is not None:
            since = min(since, now - self._looked_at + _OVERLAP_SECONDS)
        changed = await learn(engine, self._settings, since)
        self._looked_at = now
        return changed


async def run(engine: AsyncEngine, bus: Bus, settings: LearningSettings) -> None:
    """A round from time to time, until cancelled."""
    rounds, failures = Rounds(settings), Failures(Loop.LEARNING, log)
    while True:
        await asyncio.sleep(settings.learning_seconds)
        try:
            await tell(bus, await rounds.next(engine))
        except Exception as error:
            failures.met(error)
        else:
            failures.over()


async def learn(
    engine: AsyncEngine, settings: LearningSettings, since_seconds: float
) -> list[StoredRule]:
    """One round; proposals are made for those who judged something in the last so many seconds.

    All rules that moved or were made. Raises only what a database that is away raises.
    """
    wanted = settings.rules_trial_share > 0
    async with engine.connect() as connection:
        trying = await rollups.tenants_on_trial(connection, proposals=wanted)
        judged = await rollups.tenants_judged(connection, since_seconds)
    changed: list[StoredRule] = []
    for work, tenants in ((_try, trying), (_propose, judged)):
        for tenant in tenants:
            try:
                changed += await work(engine, tenant, settings)
            except Exception as error:
                if is_busy(error):
                    log.warning("learning.busy", tenant=str(tenant), error=str(error))
                    continue
                if is_outage(error):
                    raise
                log.error("learning.crashed", tenant=str(tenant), exc_info=error)
    for rule in changed:
        log.info(
            f"rule.{rule.state}",
            tenant=str(rule.tenant),
            rule=rule.name,
            version=rule.version,
            by=rule.decided_by or WORKFLOW,
            why=rule.note,
        )
    return changed


async def _try(engine: AsyncEngine, tenant: UUID, settings: LearningSettings) -> list[StoredRule]:
    async with as_tenant(engine, tenant, lock_timeout=_LOCK_TIMEOUT) as connection:
        return await run_trials(connection, tenant, settings, datetime.now(UTC))


async def _propose(
    engine: AsyncEngine, tenant: UUID, settings: LearningSettings
) -> list[StoredRule]:
    """The rules that were made; as their owner, who alone may add up requests.

    Any number of replicas may do this: one of them at a time looks at a tenant.
    """
    seconds = timedelta(days=settings.learning_days).total_seconds()
    async with engine.begin() as connection:
        if not await connection.scalar(_ALONE, {"tenant": str(tenant)}):
            return []
        await connection.execute(_PATIENCE, {"timeout": _LOCK_TIMEOUT})
        known = await rules.listed(connection, tenant, limit=_MOST_KNOWN)
        found = proposals(
            await rollups.rollup(connection, tenant, seconds),
            await rollups.complaints(connection, tenant, seconds),
            known,
            datetime.now(UTC),
        )
        before = {rule.id for rule in known}
        made = [await _stored(connection, tenant, each) for each in found]
    return [rule for rule in made if rule is not None and rule.id not in before]


async def _stored(
    connection: AsyncConnection, tenant: UUID, proposal: Proposal
) -> StoredRule | None:
    """The rule that is proposed, or was already; None where it may not be."""
    new = await rollups.propose(
        connection,
        tenant,
        proposal.name,
        scope=proposal.scope,
        change=proposal.change,
        workflow=WORKFLOW,
        provenance=proposal.provenance,
        note=proposal.note,
    )
    return await rules.find(connection, tenant, new) if new is not None else None
