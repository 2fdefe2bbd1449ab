"""Scenarios run on real processes, a real Postgres and a real RabbitMQ."""

from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from millrace.chaos.stack import Stack
from tests import forking
from tests.scenarios.browser import a_browser

MakeStack = Callable[..., Stack]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncGenerator[Browser]:
    """A Chromium of the file's own."""
    async with a_browser() as made:
        yield made


@pytest.fixture
def make_stack(
    tmp_path: Path,
    migrated_url: str,
    rabbitmq_url: str,
) -> Iterator[MakeStack]:
    """Makes an installation that serves the models given; ended with the test."""
    made: list[Stack] = []

    def make(
        *models: dict[str, Any], roles: dict[str, str] | None = None, **settings: str
    ) -> Stack:
        file: dict[str, Any] = {"models": list(models)}
        if roles:
            file["roles"] = roles
        stack = Stack(tmp_path, migrated_url, rabbitmq_url, file, settings, launch=forking.launch)
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.close()
        print(stack.logs())  # pytest shows it when the test failed
