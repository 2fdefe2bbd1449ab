"""A person in the console, as far as HTTP goes: signed in, with pages read as text."""

import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import httpx2

from db import tenants
from master.api.keys import prefix_of
from millrace.chaos.machine import NO_TLS
from millrace.one_machine import make_key
from tests.integration.master.mill import Mill


def client(url: str, **more: Any) -> httpx2.AsyncClient:
    """It keeps connections for less long than the server, which must not be the one that closes."""
    limits = httpx2.Limits(keepalive_expiry=1)
    return httpx2.AsyncClient(
        base_url=url, timeout=30, trust_env=False, verify=NO_TLS, limits=limits, **more
    )


@dataclass
class Person:
    """Somebody with a session."""

    http: httpx2.AsyncClient
    token: str

    async def get(self, path: str, status: int = 200) -> str:
        """A page."""
        answer = await self.http.get(path)
        assert answer.status_code == status, (path, words(answer.text))
        return answer.text

    async def post(self, path: str, status: int = 303, **form: Any) -> httpx2.Response:
        """What a form of a page does."""
        answer = await self.http.post(path, data={"csrf": self.token, **form})
        assert answer.status_code == status, (path, words(answer.text))
        return answer


@contextlib.asynccontextmanager
async def signed_in(url: str, key: str) -> AsyncGenerator[Person]:
    """A session of this API key."""
    async with client(url) as http:
        answer = await http.post("/console/login", data={"key": key})
        assert answer.status_code == 303, answer.text
        found = re.search(r'<meta name="csrf" content="([^"]+)"', (await _page(http)).text)
        assert found is not None
        yield Person(http, found[1])


@contextlib.asynccontextmanager
async def a_tenant(installed: Mill) -> AsyncGenerator[Mill]:
    """Of its own, so that tests do not see each other's rows."""
    key = await make_key(installed.database_url, f"tenant {uuid4()}", "tests")
    headers = {"authorization": f"Bearer {key}"}
    async with client(installed.url, headers=headers) as http:
        yield replace(installed, key=key, http=http)


async def tenant_of(mill: Mill) -> UUID:
    """Whose key it has."""
    async with mill.running.engine.connect() as connection:
        stored = await tenants.find_key(connection, prefix_of(mill.key))
    assert stored is not None
    return stored.tenant


async def _page(http: httpx2.AsyncClient) -> httpx2.Response:
    return await http.get("/console/feedback")


def words(page: str) -> str:
    """What a page says, without its tags, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
