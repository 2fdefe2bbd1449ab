"""Searches of the console share a little room."""

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from master.api.errors import ApiError
from master.console.searches import AT_ONCE, OF_ONE, Searches

ONE, OTHER, THIRD = (uuid4() for _ in range(3))


async def test_one_tenant_leaves_room_for_another() -> None:
    searches = Searches(wait_seconds=0.01)
    async with AsyncExitStack() as searching:
        for _ in range(OF_ONE):
            await searching.enter_async_context(searches.room(ONE))
        with pytest.raises(ApiError, match="try again") as refused:
            await searching.enter_async_context(searches.room(ONE))
        assert refused.value.status == 503
        for _ in range(AT_ONCE - OF_ONE):
            await searching.enter_async_context(searches.room(OTHER))
        with pytest.raises(ApiError):
            await searching.enter_async_context(searches.room(THIRD))
    # Nothing of what was refused is still taken.
    async with AsyncExitStack() as searching:
        for _ in range(OF_ONE):
            await searching.enter_async_context(searches.room(THIRD))


async def test_who_waits_is_next() -> None:
    searches, order = Searches(wait_seconds=30), list[str]()

    async def search() -> None:
        async with searches.room(ONE):
            order.append("next")

    async with searches.room(ONE), searches.room(ONE):
        waiting = asyncio.create_task(search())
        await asyncio.sleep(0)
        order.append("first")
    await waiting
    assert order == ["first", "next"]
