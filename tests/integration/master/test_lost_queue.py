"""Messages come back from a queue that somebody deleted."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

import pytest
from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.memory import MemoryBroker, MemoryBus
from bus.protocol import BusError, BusUnavailable, PublishUnknown, QueueFull, Unroutable
from db import new_requests
from master import dispatch
from master.batches import Batches
from master.dispatch import Dispatcher
from master.facts import Fact
from master.fleet import FleetView
from millrace.chaos.stack import until
from queue_schemas import topology
from queue_schemas.registry import Registry

PARTS = 4
REGISTRY = Registry.model_validate({"models": [{"name": "mill", "provider": "scripted"}]})
QUEUE = topology.subtasks("mill")


class CountingBus(MemoryBus):
    """Remembers what was declared."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.declared: list[str] = []
        self.asked_at: list[float] = []
        self.may = asyncio.Event()

    async def declare(self, queues: Sequence[topology.Queue]) -> None:
        """Make sure that these exist, when the test says so."""
        self.asked_at.append(asyncio.get_running_loop().time())
        await self.may.wait()
        self.declared += [queue.name for queue in queues]
        await super().declare(queues)


@pytest.fixture
async def waiting(engine: AsyncEngine, tenant: UUID) -> None:
    """Subtasks in the outbox."""
    steps = [
        {"key": f"part-{n}", "model": "mill", "messages": [{"role": "user", "content": "Why?"}]}
        for n in range(PARTS)
    ]
    plan = {"strategy": "split", "aggregator": "sections", "steps": steps}
    stored = to_json(plan).decode()
    row = new_requests.NewRequest(uuid4(), tenant, None, "mill", "{}", stored, 1, None, 600.0)
    parts = [new_requests.NewSubtask(uuid4(), f"part-{n}", "answer", "mill") for n in range(PARTS)]
    async with engine.begin() as connection:
        await new_requests.add(connection, row, parts)


@pytest.mark.usefixtures("waiting")
async def test_it_is_declared_once_for_all_of_them_and_nobody_waits_for_that(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "DELETION_SECONDS", 1.0)
    bus = CountingBus(MemoryBroker())
    began_at = asyncio.get_running_loop().time()
    facts: Batches[Fact] = Batches("facts")
    dispatcher = Dispatcher(engine, bus, FleetView(lambda: REGISTRY, PARTS), facts, None)
    await dispatcher._release()  # it would not come back if it waited for what nobody lets through
    assert bus.declared == []
    bus.may.set()
    async with engine.connect() as connection:
        query = text("SELECT count(*) FROM millrace.outbox WHERE last_error IS NOT NULL")
        assert await connection.scalar(query) == PARTS

    async def declared() -> bool:
        return bool(bus.declared) and not dispatcher._declaring

    await until(declared, 30)
    assert bus.declared == [QUEUE.name]
    assert bus.asked_at[0] - began_at >= 1.0, "a deleted queue is left alone for a moment"


class RefusingBus(MemoryBus):
    """Refuses every message in one way."""

    def __init__(self, broker: MemoryBroker, refusal: BusError) -> None:
        super().__init__(broker)
        self.refusal = refusal

    async def publish(
        self,
        queue: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        correlation_id: str | None = None,
    ) -> None:
        """It does not."""
        raise self.refusal


@pytest.mark.parametrize(
    ("refusal", "counts"),
    [
        (BusUnavailable("no connection"), True),
        (PublishUnknown("no confirm"), True),
        (QueueFull("the queue is full"), False),
        (Unroutable("no such queue"), False),
    ],
    ids=["unavailable", "unknown", "full", "unroutable"],
)
@pytest.mark.usefixtures("waiting")
async def test_only_a_broker_that_cannot_be_used_at_all_makes_newcomers_wait(
    engine: AsyncEngine, refusal: BusError, counts: bool
) -> None:
    facts: Batches[Fact] = Batches("facts")
    bus = RefusingBus(MemoryBroker(), refusal)
    dispatcher = Dispatcher(engine, bus, FleetView(lambda: REGISTRY, PARTS), facts, None)
    await dispatcher._release()
    for task in dispatcher._declaring.values():
        task.cancel()
    async with engine.connect() as connection:
        query = text("SELECT count(refused_at) FROM millrace.outbox WHERE last_error IS NOT NULL")
        assert await connection.scalar(query) == (PARTS if counts else 0)
