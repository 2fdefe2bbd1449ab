"""Room for what reads many rows: little in all, and one tenant cannot have all of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID
from weakref import WeakValueDictionary

from master.api import errors

AT_ONCE = 3
"""Of this replica: each may hold one of its connections for seconds."""
OF_ONE = 2
"""Of one tenant."""
WAIT_SECONDS = 10.0


class Searches:
    """Those that run on this replica."""

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._room = asyncio.Semaphore(AT_ONCE)
        self._shares: WeakValueDictionary[UUID, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def room(self, tenant: UUID) -> AsyncGenerator[None, None]:
        """Wait for room. Raises `ApiError` 503 where that takes too long."""
        share = self._shares.setdefault(tenant, asyncio.Semaphore(OF_ONE))
        async with AsyncExitStack() as taken:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await taken.enter_async_context(share)
                    await taken.enter_async_context(self._room)
            except TimeoutError:
                words = "others are searching; try again in a moment"
                raise errors.service_unavailable(words) from None
            yield
