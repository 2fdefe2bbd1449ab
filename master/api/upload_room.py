"""How many bytes of uploads are in one master at once: each has a limit, and so have all."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request

from master.api import errors

UPLOADS: Final = 4
"""Of the largest kind, at once."""
_SECONDS: Final = 30.0


class UploadRoom:
    """Room for so many bytes, given in the order in which it is asked for."""

    def __init__(self, size: int, seconds: float = _SECONDS) -> None:
        self.free = size
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def of(self, count: int) -> AsyncGenerator[None]:
        """Have room for so many bytes, at most all there is. Raises 503 after 30 s of waiting."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._take(count)
        except TimeoutError:
            message = "too many uploads are under way; try again later"
            raise errors.service_unavailable(message, self._seconds) from None
        try:
            yield
        finally:
            self.free += count
            self._freed.set()

    async def _take(self, count: int) -> None:
        async with self._turn:
            while self.free < count:
                self._freed.clear()
                await self._freed.wait()
            self.free -= count


def bytes_of(request: Request, limit: int) -> int:
    """What its body may take: as much as the client says, else as much as is read of it."""
    declared = request.headers.get("content-length", "")
    return min(int(declared[:20]), limit) if declared.isdecimal() else limit
