"""Scenarios run on real processes, a real Postgres and a real RabbitMQ."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.chaos.stack import Stack
from tests import forking

MakeStack = Callable[..., Stack]


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
