"""One installation for each file, which makes it as `installed`, and a new tenant for each test."""

from collections.abc import AsyncGenerator

import pytest_asyncio

from tests.integration.console.browsing import Person, a_tenant, signed_in
from tests.integration.master.mill import Mill


@pytest_asyncio.fixture(loop_scope="module")
async def mill(installed: Mill) -> AsyncGenerator[Mill]:
    """The installation as a new tenant has it."""
    async with a_tenant(installed) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def person(mill: Mill) -> AsyncGenerator[Person]:
    """Somebody of this tenant."""
    async with signed_in(mill.url, mill.key) as made:
        yield made
