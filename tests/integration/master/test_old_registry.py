"""A replica whose registry is older than another one's leaves what it does not know alone."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.memory import MemoryBroker, MemoryBus
from db import new_requests, outbox, subtasks
from db.workers import ModelLoad
from master import dispatch
from master.batches import Batches
from master.dispatch import Dispatcher
from master.facts import Fact
from master.fleet import FleetView, queues
from master.settings import MasterSettings
from master.streams import Streams
from master.sweep import Sweeper
from queue_schemas import topology
from queue_schemas.codec import decode
from queue_schemas.messages import RESULT, Completed, Failed
from queue_schemas.registry import Registry

PARTS = 3
FORGOTTEN_SECONDS = 60.0


def a_registry(*names: str) -> Registry:
    return Registry.model_validate(
        {"models": [{"name": name, "provider": "scripted"} for name in names]}
    )


class OldReplica:
    """Its file does not have the model `new`, for which work waits."""

    def __init__(self, engine: AsyncEngine, *names: str) -> None:
        self.registry = a_registry(*names)
        self.broker = MemoryBroker()
        bus = MemoryBus(self.broker)
        self._bus = bus
        self.view = FleetView(lambda: self.registry, 2)
        facts: Batches[Fact] = Batches("facts")
        self._dispatcher = Dispatcher(engine, bus, self.view, facts, None)
        streams = Streams(engine, bus, "old", None, self._dispatcher.nudge)
        settings = MasterSettings(
            DATABASE_URL=SecretStr("postgresql://nobody@localhost/none"),
            forgotten_seconds=FORGOTTEN_SECONDS,
        )
        self._sweeper = Sweeper(engine, bus, self.view, self._dispatcher, streams, settings)

    async def release(self) -> None:
        """A look at the outbox."""
        await self._bus.declare(queues(self.registry))
        await self._dispatcher._release()

    async def sweep(self) -> None:
        """A look for forgotten messages."""
        await self._sweeper._republish_orphans()

    def results(self) -> list[Completed | Failed]:
        """What it said in the place of workers."""
        waiting = self.broker.queues[topology.RESULTS.name].ready
        return [decode(RESULT, m.body, m.headers, None) for m in waiting]


@pytest.fixture
async def waiting(engine: AsyncEngine, tenant: UUID) -> Sequence[UUID]:
    """Subtasks of the model `new` in the outbox."""
    row = new_requests.NewRequest(uuid4(), tenant, None, "new", "{}", _PLAN, 1, None, 600.0)
    steps = [new_requests.NewSubtask(uuid4(), f"part-{n}", "answer", "new") for n in range(PARTS)]
    async with engine.begin() as connection:
        await new_requests.add(connection, row, steps)
    return [step.id for step in steps]


_STEPS = ",".join(
    f'{{"key": "part-{n}", "model": "new", "messages": [{{"role": "user", "content": "Why?"}}]}}'
    for n in range(PARTS)
)
_PLAN = f'{{"strategy": "split", "aggregator": "sections", "steps": [{_STEPS}]}}'


async def age(engine: AsyncEngine, seconds: float) -> None:
    """Nobody has touched the rows for so long."""
    since = "now() - make_interval(secs => :seconds)"
    async with engine.begin() as connection:
        values = {"seconds": seconds}
        await connection.execute(
            text(f"UPDATE millrace.outbox SET available_at = {since}, created_at = {since}"), values
        )
        await connection.execute(text(f"UPDATE millrace.subtasks SET queued_at = {since}"), values)


async def tries(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT tries FROM millrace.outbox ORDER BY id")))


async def test_it_takes_no_work_of_a_model_that_it_never_knew(
    engine: AsyncEngine, waiting: Sequence[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_HOPELESS_TRIES", 1)
    old = OldReplica(engine, "mill")
    await age(engine, 60)
    for _ in range(3):
        await old.release()
    assert await tries(engine) == [0] * PARTS
    assert old.results() == []


async def test_it_gives_up_what_nobody_has_wanted_for_minutes(
    engine: AsyncEngine, waiting: Sequence[UUID]
) -> None:
    old = OldReplica(engine, "mill")
    await age(engine, dispatch.STRANGE_SECONDS + 1)
    await old.release()
    assert await tries(engine) == [1] * PARTS
    assert old.results() == [], "after an outage nobody has touched them; others look now"
    await age(engine, dispatch.STRANGE_SECONDS + 1)
    await old.release()
    given_up = old.results()
    assert {result.subtask for result in given_up} == set(waiting)
    assert {r.code for r in given_up if isinstance(r, Failed)} == {"model_unavailable"}


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param({"workers": [{"model": "new"}]}, id="a-worker-serves-it"),
        pytest.param({"loads": {"new": ModelLoad(queued=1)}}, id="somebody-publishes-it"),
    ],
)
async def test_it_never_gives_up_what_somebody_else_knows(
    engine: AsyncEngine, waiting: Sequence[UUID], seen: dict[str, Any]
) -> None:
    old = OldReplica(engine, "mill")
    for name, value in seen.items():
        setattr(old.view, name, value)
    for _ in range(3):
        await age(engine, dispatch.STRANGE_SECONDS + 1)
        await old.release()
    assert await tries(engine) == [0] * PARTS
    assert old.results() == []


async def test_a_model_that_it_knew_and_that_was_taken_out_is_given_up_after_a_few_tries(
    engine: AsyncEngine, waiting: Sequence[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_HOPELESS_TRIES", 2)
    replica = OldReplica(engine, "mill", "new")
    replica.registry = a_registry("mill")
    for _ in range(2):
        await age(engine, 0)
        await replica.release()
    assert {result.subtask for result in replica.results()} == set(waiting)


async def test_what_it_says_again_while_results_lag_is_the_same_result(
    engine: AsyncEngine, waiting: Sequence[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_HOPELESS_TRIES", 1)
    replica = OldReplica(engine, "mill", "new")
    replica.registry = a_registry("mill")
    for _ in range(2):
        await age(engine, 0)
        await replica.release()
    said = replica.results()
    assert len(said) == 2 * PARTS
    assert len({result.execution for result in said}) == PARTS


@pytest.mark.parametrize("knew", [True, False])
async def test_queued_work_of_a_model_that_it_never_knew_is_published_again_only_after_minutes(
    engine: AsyncEngine, waiting: Sequence[UUID], knew: bool
) -> None:
    replica = OldReplica(engine, "mill", *(["new"] if knew else []))
    replica.registry = a_registry("mill")
    replica.view.loads = {"new": ModelLoad(queued=PARTS)}
    async with engine.begin() as connection:
        sent = [(subtask, 1) for subtask in waiting]
        await subtasks.mark_queued(connection, sent)
        await outbox.forget_sent(connection, sent)
    await age(engine, FORGOTTEN_SECONDS + 1)
    await replica.sweep()
    assert len(await tries(engine)) == (PARTS if knew else 0)
    await age(engine, dispatch.STRANGE_SECONDS + 1)
    await replica.sweep()
    assert len(await tries(engine)) == PARTS


async def test_queued_work_of_a_model_that_a_worker_serves_is_left_on_its_queue(
    engine: AsyncEngine, waiting: Sequence[UUID]
) -> None:
    old = OldReplica(engine, "mill")
    old.view.loads = {"new": ModelLoad(queued=PARTS)}
    old.view.workers = [{"model": "new"}]
    async with engine.begin() as connection:
        sent = [(subtask, 1) for subtask in waiting]
        await subtasks.mark_queued(connection, sent)
        await outbox.forget_sent(connection, sent)
    await age(engine, dispatch.STRANGE_SECONDS + 1)
    await old.sweep()
    assert await tries(engine) == []
