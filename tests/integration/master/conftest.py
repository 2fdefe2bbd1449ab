"""A master in this process, over the memory bus, with a real database and a real HTTP server."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from master.hearing import Hearing
from tests.integration.master.mill import Mill, installation

MakeMill = Callable[..., Awaitable[Mill]]


@pytest.fixture
async def make_mill(migrated_url: str) -> AsyncGenerator[MakeMill, None]:
    """Makes an installation that serves the models given; ended with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*models: dict[str, Any], **settings: Any) -> Mill:
            return await stack.enter_async_context(installation(migrated_url, *models, **settings))

        yield make


@pytest.fixture
def quick_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that takes work away at once: a new one lets every lease begin anew."""
    begin = Hearing.__init__

    def begun(self: Hearing, *args: Any) -> None:
        begin(self, *args)
        self._complete_at = 0.0

    monkeypatch.setattr(Hearing, "__init__", begun)
