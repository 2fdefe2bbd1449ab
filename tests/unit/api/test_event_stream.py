"""What one client's stream does with its socket."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from master.api import sse
from master.api.streaming import Dialect, EventStream
from master.ending import Ending
from master.live import Item, Text
from master.metrics import chats
from queue_schemas.states import RequestState
from tests.unit.master.test_live import a_live, chunk, settle

TENANT = UUID(int=3)
SECONDS = 0.2


class Socket:
    """A server's side of a connection: it takes frames as long as it is open."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.gone = asyncio.Event()
        self.cut = False

    async def send(self, message: Any) -> None:
        await self.open.wait()
        self.taken.append(message)

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def abort(self) -> None:
        self.cut = True
        self.gone.set()

    @property
    def scope(self) -> dict[str, Any]:
        return {"type": "http", "extensions": {"millrace.cut": {"now": self.abort}}}

    @property
    def frames(self) -> list[bytes]:
        return [message.get("body", b"") for message in self.taken[1:]]


class Master:
    """Keeps how its clients left."""

    def __init__(self, characters: int, seconds: float = SECONDS) -> None:
        self.settings = SimpleNamespace(
            keep_alive_seconds=30,
            slow_consumer_seconds=seconds,
            slow_consumer_characters=characters,
        )
        self.left: list[str] = []
        self.streams = SimpleNamespace(close=lambda live: self.left.append("closed"))

    def leave(self, live: object, tenant: UUID) -> None:
        self.left.append("left")


def show(item: Item) -> tuple[bytes, ...]:
    match item:
        case Text(text):
            return (text.encode(),)
        case Ending():
            return (b"the end",)
        case _:
            return ()


PLAIN = Dialect(b"begin", show, sse.failure)


async def stuck(
    socket: Socket, characters: int, words: str = "w" * 100, seconds: float = SECONDS
) -> tuple[Any, ...]:
    """A stream whose client has taken the first frame and no other one."""
    live, [subtask] = a_live()
    master = Master(characters, seconds)
    stream = EventStream(master, live, TENANT, PLAIN)  # type: ignore[arg-type]
    serving = asyncio.create_task(stream(socket.scope, socket.receive, socket.send))
    await settle()
    assert socket.frames == [b"begin"]
    socket.open.clear()
    live.take(chunk(subtask, 0, "first"))
    await settle()
    live.take(chunk(subtask, 5, words))
    return live, master, serving


async def wait(serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(30):
        await serving


async def test_a_client_may_sleep_while_little_waits_for_it() -> None:
    socket = Socket()
    live, master, serving = await stuck(socket, characters=1000)
    await asyncio.wait({serving}, timeout=4 * SECONDS)
    assert not serving.done()
    socket.open.set()
    await settle()  # before the end, with which nobody may sleep any more
    live.end(Ending(RequestState.COMPLETED, answer="first" + "w" * 100))
    await wait(serving)
    assert b"".join(socket.frames) == b"beginfirst" + b"w" * 100 + b"the end"
    assert master.left == ["left"]


@pytest.mark.parametrize("ends", [False, True], ids=["much waits", "nothing more will come"])
async def test_a_client_that_takes_nothing_is_told_and_its_request_goes_on(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = Socket()
    # It wakes up in the time between the decision, which is counted, and the cut.
    counter = SimpleNamespace(inc=socket.open.set)
    monkeypatch.setattr(chats, "slow_consumers_total", counter)
    live, master, serving = await stuck(socket, characters=1000 if ends else 50)
    if ends:
        live.end(Ending(RequestState.COMPLETED, answer="first" + "w" * 100))
    await wait(serving)
    assert socket.frames[0] == b"begin"
    assert b'"code":"slow_consumer"' in socket.frames[-1]
    assert socket.frames[-1].endswith(sse.DONE)
    assert not socket.cut
    assert not socket.taken[-1].get("more_body")
    assert master.left == ["closed"]


async def test_a_client_that_never_wakes_up_loses_its_connection() -> None:
    socket = Socket()
    _, master, serving = await stuck(socket, characters=50)
    await wait(serving)
    assert socket.cut
    assert socket.frames == [b"begin"]
    assert master.left == ["closed"]


async def test_one_frame_at_most_is_in_a_clients_hands_and_it_is_small() -> None:
    socket = Socket()
    live, _, serving = await stuck(socket, 10**9, "w" * 1_000_000, seconds=60)
    socket.open.set()
    live.end(Ending(RequestState.COMPLETED, answer="first" + "w" * 1_000_000))
    await wait(serving)
    assert sum(map(len, socket.frames)) == len("beginfirstthe end") + 1_000_000
    assert max(map(len, socket.frames)) <= 16_384


def fails(item: Item) -> tuple[bytes, ...]:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("frames", [fails, lambda item: map(fails, [item])])
async def test_a_bug_in_a_dialect_is_the_last_frame(
    frames: Callable[[Item], Any],
) -> None:
    socket, (live, [subtask]), master = Socket(), a_live(), Master(1000)
    stream = EventStream(master, live, TENANT, Dialect(b"begin", frames, sse.failure))  # type: ignore[arg-type]
    live.take(chunk(subtask, 0, "first"))
    await stream(socket.scope, socket.receive, socket.send)
    assert socket.frames[0] == b"begin"
    assert b'"code":"internal_error"' in socket.frames[1]
    assert socket.frames[1].endswith(sse.DONE)
    assert socket.frames[2:] == [b""]
    assert master.left == ["left"]


async def test_who_leaves_before_the_first_byte_is_noticed() -> None:
    socket, (live, _), master = Socket(), a_live(), Master(1000)
    socket.gone.set()
    stream = EventStream(master, live, TENANT, PLAIN)  # type: ignore[arg-type]
    await wait(asyncio.create_task(stream(socket.scope, socket.receive, socket.send)))
    assert master.left == ["left"]
