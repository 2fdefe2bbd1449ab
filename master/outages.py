"""What is away: how that is told from a bug, and how it is said in the log."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from bus.protocol import BusError, BusUnavailable
from master.metrics.loops import Loop, count_failure

_ANOTHER_TRY = ("08", "25P03", "40001", "40P01", "53", "55000", "57P0", "58")
"""SQLSTATEs: connection lost, also for idling within a transaction, conflict, out of resources, not
accepting, shutting down, disk."""


def is_outage(error: Exception) -> bool:
    """Whether the database is away or asks for another try, so that waiting helps."""
    if isinstance(error, OSError | TimeoutError | OperationalError | InterfaceError):
        return True
    if isinstance(error, NoConnectionFree):  # the pool is busy; not a TimeoutError of Python's
        return True
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlstate", None) or ""
        return error.connection_invalidated or code.startswith(_ANOTHER_TRY)
    return False


_IN_THE_WAY = ("40001", "40P01", "55P03")
"""SQLSTATEs: conflict, a circle of waiting, waited too long for a row."""


def is_busy(error: Exception) -> bool:
    """Whether the database is there, and only somebody else's transaction was in the way."""
    code = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return code in _IN_THE_WAY


def is_away(error: Exception) -> bool:
    """Whether nobody here could write to the database: no conflict, and no pool that is busy."""
    if isinstance(error, NoConnectionFree):
        return False
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlstate", None) or ""
        return is_outage(error) and not code.startswith("40")
    return is_outage(error)


@contextlib.asynccontextmanager
async def answer_within(seconds: float) -> AsyncGenerator[None, None]:
    """For words with the broker. Raises BusUnavailable when they take longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise BusUnavailable(f"RabbitMQ gave no answer within {seconds:g} s") from error


# --- what the log says ---------------------------------------------------------------------------


def said(error: BaseException) -> str:
    """What an error says. Some, like a timeout or a lost connection, have no words but a name."""
    return str(error) or type(error).__name__


class Failures:
    """What fails in one loop. A bug is logged each time, an outage when something changes.

    That is when it begins, when it has another cause, and when a round works again.
    """

    def __init__(self, loop: Loop, log: structlog.stdlib.BoundLogger, **names: str) -> None:
        self._loop = loop
        self._log = log
        self._names = names
        self._causes: set[tuple[type, type]] = set()
        """Of the outage that lasts; empty while there is none."""
        self._since = 0.0

    def met(self, error: Exception, **names: str) -> None:
        """A round failed: count and log it."""
        count_failure(self._loop)
        self.note(error, **names)

    def note(self, error: Exception, **names: str) -> None:
        """Only log it: something failed besides the rounds."""
        names = self._names | names
        if not (is_outage(error) or isinstance(error, BusError)):
            self._log.error(f"{self._loop}.failed", exc_info=error, **names)
            return
        if not self._causes:
            self._since = time.monotonic()
        cause = (type(error), type(getattr(error, "orig", None)))
        if cause not in self._causes:
            self._causes.add(cause)
            away = "broker" if isinstance(error, BusError) else "database"
            self._log.warning(f"{self._loop}.outage", dependency=away, error=said(error), **names)

    def over(self) -> None:
        """A round worked."""
        if self._causes:
            self._causes.clear()
            lasted = round(time.monotonic() - self._since, 1)
            self._log.info(f"{self._loop}.goes_on", after_seconds=lasted, **self._names)
