import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import Request

from master.api.errors import ApiError
from master.api.upload_room import UploadRoom, bytes_of


async def hold(room: UploadRoom, count: int, until: Callable[[], Awaitable[object]]) -> None:
    async with room.of(count):
        await until()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_does_not_fit_waits_and_nobody_passes_those_who_wait() -> None:
    room, first, rest = UploadRoom(10), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold(room, 6, first.wait))
        group.create_task(hold(room, 10, rest.wait))
        group.create_task(hold(room, 1, rest.wait))
        await settled()
        assert room.free == 4
        first.set()
        await settled()
        assert room.free == 0
        rest.set()
    assert room.free == 10


async def test_who_waits_too_long_is_told_to_come_again() -> None:
    room, done = UploadRoom(10, seconds=0.01), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold(room, 6, done.wait))
        await settled()
        with pytest.raises(ApiError) as caught:
            await hold(room, 6, done.wait)
        assert (caught.value.status, caught.value.code) == (503, "service_unavailable")
        assert "Retry-After" in caught.value.headers
        done.set()
    assert room.free == 10


async def test_failures_and_clients_that_leave_give_their_room_back() -> None:
    room = UploadRoom(10)

    async def fails() -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await hold(room, 10, fails)
    holding = asyncio.create_task(hold(room, 10, asyncio.Event().wait))
    waiting = asyncio.create_task(hold(room, 10, asyncio.Event().wait))
    await settled()
    for task in (waiting, holding):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert room.free == 10
    async with room.of(10):
        assert room.free == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-length": "7"}, 7),
        ({"content-length": "0"}, 0),
        ({"content-length": "1000"}, 100),
        ({"content-length": "9" * 5000}, 100),
        ({"content-length": "-5"}, 100),
        ({"transfer-encoding": "chunked"}, 100),
    ],
)
def test_a_body_takes_what_it_says_or_what_is_read_at_most(
    headers: dict[str, str], expected: int
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert bytes_of(Request({"type": "http", "headers": raw}), 100) == expected
