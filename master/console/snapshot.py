"""What the overview shows: taken once a second for all who look, of one tenant each."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db import overview
from db.overview import LastHour, Open
from master.api import outages
from master.console.concerns import Concern, concerns
from master.console.lanes import Lane, lanes
from master.fleet import Dependency, FleetView

FRESH_SECONDS = 0.9
_HOUR_SECONDS = 10.0
"""The last hour changes slowly, and counting a busy one takes a while."""
_REST = 50
"""Between two counts at least so many times what the last one took."""


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment."""

    lanes: Sequence[Lane]
    still_open: Open
    hour: LastHour
    concerns: Sequence[Concern]
    at: datetime

    @property
    def deepest(self) -> int:
        """What the longest bar stands for."""
        return max((lane.depth for lane in self.lanes), default=0)


@dataclass
class _Kept:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    snapshot: Snapshot | None = None
    until: float = 0.0
    hour: LastHour = field(default_factory=LastHour)
    hour_until: float = 0.0


@dataclass
class Snapshots:
    """The latest snapshot of each tenant."""

    engine: AsyncEngine
    view: FleetView
    request_seconds: float
    """What requests have at most."""
    _kept: dict[UUID, _Kept] = field(default_factory=dict)

    async def of(self, tenant: UUID) -> Snapshot:
        """At most a second old. Raises `ApiError` 503 while the database is away."""
        kept = self._kept.setdefault(tenant, _Kept())
        async with kept.lock:  # who comes meanwhile gets the same one
            if kept.snapshot is None or kept.until < time.monotonic():
                kept.snapshot = await self._take(kept, tenant)
                kept.until = time.monotonic() + FRESH_SECONDS
            return kept.snapshot

    async def _take(self, kept: _Kept, tenant: UUID) -> Snapshot:
        with outages.answered():
            async with self.engine.connect() as connection:
                still_open = await overview.still_open(connection, tenant)
                began = time.monotonic()
                if kept.hour_until < began:
                    kept.hour = await overview.last_hour(connection, tenant, self.request_seconds)
                    ended = time.monotonic()
                    kept.hour_until = ended + max(_HOUR_SECONDS, _REST * (ended - began))
        found = lanes(self.view)
        worries = concerns(
            found,
            still_open,
            kept.hour,
            away=[each for each in Dependency if not self.view.is_up(each, time.monotonic())],
            unpublishable_seconds=self.view.unpublishable_seconds,
            quarantined=self.view.quarantined,
        )
        return Snapshot(found, still_open, kept.hour, worries, datetime.now(UTC))
