"""One replica streams what another one collects, and no client sees a contradiction (P6)."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from bus.memory import MemoryBus
from master import onlookers
from millrace.chaos.stack import until
from queue_schemas import topology
from queue_schemas.messages import TokenChunk
from tests.integration.master.mill import Mill, Streamed, a_script, installations
from tests.integration.master.moody import BUSY, Moody, Turn, always

FIRST = "the wheel turns because of water"
OTHER = "a stone lies in the grass and nobody knows why it does"
PACE = 0.03
LEASE = 60.0

MakeMills = Callable[[Moody], Awaitable[list[Mill]]]


@pytest.fixture
async def make_mills(migrated_url: str) -> AsyncGenerator[MakeMills, None]:
    """Makes a replica that streams and hears of nothing else, and one that collects."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(engine: Moody) -> list[Mill]:
            mills = await stack.enter_async_context(
                installations(
                    migrated_url,
                    a_script(),
                    masters=2,
                    provider=always(engine),
                    lease_seconds=LEASE,
                    heartbeat_seconds=0.2,
                )
            )
            bus = mills[0].running.bus
            assert isinstance(bus, MemoryBus)
            for consumer in bus._consumers:
                if consumer.queue.spec.name in {topology.RESULTS.name, topology.WORKERS.name}:
                    await consumer.cancel()
            return mills

        yield make


def lose_chunks_of_the_second(mill: Mill, engine: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens may be lost; then only its result tells what a second execution said."""
    take = mill.running.streams._take

    def lossy(message: Any) -> None:
        if not (isinstance(message, TokenChunk) and len(engine.asked) == 2):
            take(message)

    monkeypatch.setattr(mill.running.streams, "_take", lossy)


async def agrees(mill: Mill, got: Streamed) -> dict[str, Any]:
    assert got.ends_once(), got.frames[-3:]
    record = await mill.record(got.request)
    assert record["state"] == "completed"
    assert record["answer"] == got.text
    return record


async def test_a_redelivered_text_that_another_replica_collects_does_not_contradict_what_was_shown(
    make_mills: MakeMills, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Moody(Turn(FIRST, PACE, hangs=True), Turn(OTHER))
    streaming, _ = await make_mills(engine)
    lose_chunks_of_the_second(streaming, engine, monkeypatch)
    monkeypatch.setattr(onlookers, "PATIENCE_SECONDS", 60)  # however long this machine stands still

    async def lose(got: Streamed) -> None:
        if "wheel turns" in got.text and len(engine.asked) == 1:
            await streaming.worker_buses["mill"].break_connection()

    got = await streaming.streamed(seen=lose)
    record = await agrees(streaming, got)
    shown = engine.asked[-1].shown
    assert shown.startswith("the wheel turns")
    assert got.text == f"{shown} and so on"
    assert record["measured"]["wall_seconds"] < LEASE / 2, "it waited for a lease to expire"


async def test_a_retried_text_that_another_replica_collects_does_not_contradict_what_was_shown(
    make_mills: MakeMills, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Moody(Turn(FIRST, PACE, error=BUSY), Turn(OTHER))
    streaming, _ = await make_mills(engine)
    lose_chunks_of_the_second(streaming, engine, monkeypatch)
    monkeypatch.setattr(onlookers, "PATIENCE_SECONDS", 60)  # however long this machine stands still
    got = await streaming.streamed()
    await agrees(streaming, got)
    assert got.text == f"{FIRST} and so on"


async def test_a_second_result_waits_only_for_a_replica_that_lives(make_mills: MakeMills) -> None:
    """Nobody knows what the client of a dead replica saw; the request is answered all the same."""
    engine = Moody(Turn(FIRST, error=BUSY), Turn(FIRST))
    streaming, other = await make_mills(engine)
    answer = await streaming.http.post(
        "/v1/responses", json={"model": "mill", "input": "Why?", "background": True}
    )
    request = answer.json()["id"].removeprefix("resp_")
    await streaming.broker.queues[streaming.running.streams.queue.name].consumers[0].cancel()
    record = await other.until_state(request, "completed")
    assert record["answer"] == FIRST
    await until(lambda: _idle(other), 30)


async def _idle(mill: Mill) -> bool:
    return not mill.broker.queues[topology.RESULTS.name].consumers[0]._in_hand
