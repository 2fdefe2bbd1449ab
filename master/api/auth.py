"""Who asks: from the Authorization header to a tenant."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import Headers

from db import tenants
from db.tenants import StoredKey
from master.api import errors, outages
from master.api.keys import bearer, matches, prefix_of
from master.submit import Asker

_MOST_CACHED = 10_000


@dataclass(frozen=True)
class _Cached:
    key: StoredKey | None
    until: float


class KnownKeys:
    """Looks keys up, and remembers each for a few seconds so that a chat costs no query."""

    def __init__(self, engine: AsyncEngine, cache_seconds: float) -> None:
        self._engine = engine
        self._cache_seconds = cache_seconds
        self._cached: dict[str, _Cached] = {}

    async def tenant_of(self, headers: Headers, now: float) -> StoredKey:
        """The valid key of a request. Raises 401."""
        return await self.owner_of(bearer(headers.get("authorization")), now)

    async def owner_of(self, plain: str, now: float) -> StoredKey:
        """The valid key that reads so. Raises 401."""
        key = await self.find(prefix_of(plain), now)
        valid = matches(plain, key.digest if key else None)
        if not valid or key is None or key.revoked_at is not None:
            raise errors.invalid_api_key()
        return key

    async def find(self, prefix: str, now: float) -> StoredKey | None:
        """The key with this public prefix, revoked or not."""
        cached = self._cached.get(prefix)
        if cached is None or cached.until < now:
            with outages.answered():
                async with self._engine.connect() as connection:
                    found = await tenants.find_key(connection, prefix)
            cached = _Cached(found, now + self._cache_seconds)
            if len(self._cached) >= _MOST_CACHED:
                self._cached.clear()
            self._cached[prefix] = cached
        return cached.key

    def forget(self, prefix: str) -> None:
        """Look this key up again; it was made or revoked here."""
        self._cached.pop(prefix, None)


def asker(key: StoredKey, headers: Headers, user: str | None) -> Asker:
    """The tenant with the person the front end names, if it names one."""
    named = headers.get("x-openwebui-user-id") or user
    return Asker(tenant=key.tenant, end_user=named[:256] if named else None)
