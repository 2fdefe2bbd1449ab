"""Whether this replica could have heard its workers lately; only then is a silent one lost.

A lease runs out by the database's clock, whether or not anybody reads the heartbeats meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.5


class Hearing:
    """Complete when heartbeats were read and written for a whole lease."""

    def __init__(
        self, lease_seconds: float, unwritten_seconds: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`unwritten_seconds`: for how long what was read has been waiting to be written."""
        self._lease_seconds = lease_seconds
        self._unwritten_seconds = unwritten_seconds
        # Settings see to it that a lease outlasts two heartbeats: to miss half of one costs none.
        self._bearable_seconds = lease_seconds / 2
        self._awake_at = time.monotonic()
        self._ahead: float | None = None
        """The database's clock before ours, at most, when they were compared last."""
        self._complete_at = self._awake_at + lease_seconds
        """With this process every lease begins anew."""

    @property
    def is_complete(self) -> bool:
        """Whether a worker that was not heard is silent."""
        self._look()
        return time.monotonic() >= self._complete_at

    def begin_anew(self, after_seconds: float = 0.0) -> None:
        """Nobody could be heard until now, or until in so many seconds."""
        complete_at = time.monotonic() + after_seconds + self._lease_seconds
        self._complete_at = max(self._complete_at, complete_at)

    async def watch(self) -> None:
        """Notice a process that stands still, until cancelled.

        It must not be asked of a loop that also waits for others: heartbeats are read meanwhile.
        """
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._look()

    async def agrees(self, ask: Callable[[], Awaitable[float]]) -> bool:
        """Whether our clock and the database's, in seconds, went on alike since the last time.

        One leaps when it is set, and when a machine sleeps while the other one does not; a sleeping
        laptop's monotonic clock stands still.
        """
        asked = time.monotonic()
        database = await ask()
        now = time.monotonic()
        leapt = 0.0 if self._ahead is None else database - now - self._ahead
        self._ahead = database - asked
        if leapt > self._bearable_seconds:
            self._missed("sweep.clock_leapt", leapt)
        elif now - asked > self._bearable_seconds:
            self._missed("sweep.database_hung", now - asked)
        else:
            return True
        return False

    def _look(self) -> None:
        now = time.monotonic()
        stood = now - self._awake_at - _TICK_SECONDS
        self._awake_at = now
        if stood > self._bearable_seconds:
            self._missed("sweep.stood_still", stood)
        elif (unwritten := self._unwritten_seconds()) > self._bearable_seconds:
            self._missed("sweep.nothing_written", unwritten)

    def _missed(self, event: str, seconds: float) -> None:
        if time.monotonic() >= self._complete_at:  # else it was said, or nobody was heard anyway
            log.warning(event, seconds=round(seconds, 1))
        self.begin_anew()
