"""Reconcile finds each kind of disagreement, mends it, and leaves what is right alone."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.memory import MemoryBroker, MemoryBus
from db import leases, new_requests, outbox, requests, subtasks
from db import reconcile as facts
from master.fleet import queues
from master.mend import mend, tools
from master.peeked import explain
from master.planning.plan import AggregatorName, Plan, Step
from master.reconcile import Installation, Kind, Look, Scope, look
from master.settings import MasterSettings
from queue_schemas import topology
from queue_schemas.codec import encode
from queue_schemas.messages import Started, SubtaskRequest
from queue_schemas.registry import Registry
from queue_schemas.states import SubtaskState
from tests.doubles.subtasks import a_subtask

REGISTRY = Registry.model_validate({"models": [{"name": "mill", "provider": "scripted"}]})
QUEUE = topology.subtasks("mill")
COUNTS, PEEKING = Scope(older_seconds=-1), Scope(older_seconds=-1, peek=100)


@dataclass
class Site:
    """A database and a broker, without any process that would tidy up."""

    engine: AsyncEngine
    tenant: UUID
    broker: MemoryBroker
    bus: MemoryBus
    settings: MasterSettings

    async def look(self, scope: Scope = COUNTS) -> Look:
        at = Installation(self.engine, self.bus, REGISTRY, None)
        return await look(at, scope)

    async def kinds(self, scope: Scope = COUNTS) -> list[tuple[Kind, int]]:
        return [(finding.kind, finding.count) for finding in (await self.look(scope)).findings]

    async def mend(self, scope: Scope = COUNTS) -> None:
        at = tools(self.engine, self.bus, REGISTRY, self.settings)
        await mend(at, await self.look(scope), scope)

    async def add(self, steps: int = 1, deadline: float = 60.0) -> tuple[UUID, list[UUID]]:
        """A request whose subtasks are ready."""
        keys = [f"part-{n}" for n in range(steps)]
        plan = Plan(
            strategy="split",
            aggregator=AggregatorName.SECTIONS,
            steps=tuple(Step(key=key, model="mill", messages=()) for key in keys),
        )
        request = new_requests.NewRequest(
            uuid4(), self.tenant, None, "mill", "{}", plan.model_dump_json(), 1, None, deadline
        )
        rows = [new_requests.NewSubtask(uuid4(), key, "answer", "mill") for key in keys]
        async with self.engine.begin() as connection:
            await new_requests.add(connection, request, rows)
        return request.id, [row.id for row in rows]

    async def queued(self, steps: int = 1) -> tuple[UUID, list[UUID]]:
        """A request whose subtasks the broker has confirmed."""
        request, ids = await self.add(steps)
        async with self.engine.begin() as connection:
            await subtasks.mark_queued(connection, [(i, 1) for i in ids])
            await outbox.forget_sent(connection, [(i, 1) for i in ids])
        for subtask in ids:
            await self.publish(subtask)
        return request, ids

    async def running(self, lease_seconds: float = 60.0) -> tuple[UUID, UUID]:
        """A request whose one subtask a worker has begun."""
        request, [subtask] = await self.add()
        start = Started(
            request=request, subtask=subtask, attempt=1, execution=uuid4(), delivery=0, worker="w"
        )
        async with self.engine.begin() as connection:
            await leases.claim(connection, [start], lease_seconds)
            await outbox.forget_sent(connection, [(subtask, 1)])
        return request, subtask

    async def publish(self, subtask: UUID, attempt: int = 1) -> None:
        message = a_subtask(subtask=subtask, attempt=attempt)
        await self.bus.publish(QUEUE.name, *encode(message))

    async def sql(self, statement: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement))

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]

    def messages(self, queue: str = QUEUE.name) -> list[bytes]:
        return [message.body for message in self.broker.queues[queue].ready]


@pytest.fixture
async def site(engine: AsyncEngine, tenant: UUID, migrated_url: str) -> AsyncGenerator[Site, None]:
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    await bus.declare(queues(REGISTRY))
    settings = MasterSettings(DATABASE_URL=SecretStr(migrated_url))
    yield Site(engine, tenant, broker, bus, settings)
    await bus.aclose()


@pytest.mark.parametrize("scope", [COUNTS, PEEKING], ids=["counts", "peek"])
async def test_where_all_is_right_nothing_is_found_and_nothing_changes(
    site: Site, scope: Scope
) -> None:
    await site.add(steps=2)
    await site.queued(steps=3)
    await site.running()
    before = site.messages()
    assert await site.kinds(scope) == []
    await site.mend(scope)
    assert site.messages() == before
    assert await site.rows("SELECT count(*) FROM millrace.outbox") == [(2,)]


async def test_messages_that_the_broker_lost_are_published_again(site: Site) -> None:
    _, ids = await site.queued(steps=2)
    site.broker.queues[QUEUE.name].ready.clear()
    assert await site.kinds() == [(Kind.MISSING, 2)]
    assert await site.kinds(Scope(older_seconds=60)) == [], "work in progress"
    await site.mend()
    found = await site.rows("SELECT subtask_id, attempt FROM millrace.outbox")
    assert sorted(found) == sorted((i, 1) for i in ids)
    assert await site.kinds(COUNTS) == []


async def test_a_broker_without_its_queues_gets_them_and_all_their_messages_again(
    site: Site,
) -> None:
    await site.queued(steps=2)
    site.broker.queues.clear()
    # Without its queue a message is lost however young it is.
    careful = Scope(older_seconds=60)
    assert await site.kinds(careful) == [
        (Kind.NO_QUEUE, 1),
        (Kind.MISSING, 2),
        (Kind.NO_QUEUE, len(topology.SHARED)),
    ]
    await site.mend(careful)
    assert await site.kinds(careful) == []
    assert {queue.name for queue in queues(REGISTRY)} == set(site.broker.queues)
    assert await site.rows("SELECT count(*) FROM millrace.outbox") == [(2,)]


async def test_a_message_that_is_missing_among_others_is_found_by_looking_at_them(
    site: Site,
) -> None:
    _, ids = await site.queued(steps=3)
    del site.broker.queues[QUEUE.name].ready[1]
    [finding] = (await site.look()).findings
    assert (finding.kind, finding.count, finding.ids) == (Kind.MISSING, 1, ())
    [finding] = (await site.look(PEEKING)).findings
    assert finding.ids == (ids[1],)
    await site.mend(PEEKING)
    assert await site.rows("SELECT subtask_id FROM millrace.outbox") == [(ids[1],)]


async def test_orphans_and_duplicates_are_taken_out_and_strangers_put_aside(site: Site) -> None:
    _, [kept] = await site.queued()
    await site.publish(kept)
    request, [ended] = await site.queued()
    async with site.engine.begin() as connection:
        await requests.drop_subtasks(connection, request)
    _, [older] = await site.queued()
    async with site.engine.begin() as connection:
        assert await subtasks.again(connection, older, 1)
    stranger = uuid4()
    await site.publish(stranger)
    await site.bus.publish(QUEUE.name, b"not a message")
    await site.sql(
        "UPDATE millrace.requests SET state = 'cancelled', finished_at = now()"
        f" WHERE id = '{request}'"
    )

    assert await site.kinds() == [(Kind.SURPLUS, 4)]
    found = await site.look(PEEKING)
    assert [(f.kind, f.count) for f in found.findings] == [
        (Kind.ORPHAN, 2),
        (Kind.ORPHAN, 1),
        (Kind.DUPLICATE, 1),
        (Kind.UNREADABLE, 1),
    ]
    assert set(found.findings[0].ids) == {ended, older}
    assert found.findings[1].ids == (stranger,)
    assert len(site.messages()) == 6, "looking takes nothing away"

    await site.mend(PEEKING)
    assert [SubtaskRequest.model_validate_json(m).subtask for m in site.messages()] == [kept]
    assert len(site.messages(topology.QUARANTINE.name)) == 2
    assert await site.kinds(PEEKING) == []


async def test_looking_often_loses_no_message_to_the_delivery_limit(site: Site) -> None:
    _, ids = await site.queued(steps=3)
    for _ in range(2 * topology.DELIVERY_LIMIT):
        assert await site.kinds(PEEKING) == []
    found = [SubtaskRequest.model_validate_json(m).subtask for m in site.messages()]
    assert sorted(found) == sorted(ids)
    assert site.messages(topology.DEAD.name) == []


async def test_a_ready_subtask_without_outbox_row_gets_one(site: Site) -> None:
    _, [subtask] = await site.add()
    await site.sql("DELETE FROM millrace.outbox")
    assert await site.kinds() == [(Kind.UNSENT, 1)]
    await site.mend()
    assert await site.rows("SELECT subtask_id, attempt FROM millrace.outbox") == [(subtask, 1)]
    assert await site.kinds() == []


async def test_outbox_rows_that_nobody_needs_are_deleted(site: Site) -> None:
    _, running = await site.running()
    _, [retried] = await site.add()
    await site.sql(
        "INSERT INTO millrace.outbox (tenant_id, subtask_id, attempt, model, owner)"
        " SELECT tenant_id, id, attempt, model, owner FROM millrace.subtasks"
        f" WHERE id = '{running}'"
    )
    await site.sql(f"UPDATE millrace.subtasks SET attempt = 2 WHERE id = '{retried}'")
    await site.sql(
        "INSERT INTO millrace.outbox (tenant_id, subtask_id, attempt, model, owner)"
        f" SELECT tenant_id, id, 2, model, owner FROM millrace.subtasks WHERE id = '{retried}'"
    )
    assert await site.kinds() == [(Kind.STALE, 2)]
    await site.mend()
    assert await site.rows("SELECT subtask_id, attempt FROM millrace.outbox") == [(retried, 2)]


async def test_expired_leases_and_deadlines_are_dealt_with_as_the_sweep_does(site: Site) -> None:
    _, lost = await site.running(lease_seconds=-30)
    late, _ = await site.add(deadline=-30)
    assert await site.kinds(Scope(older_seconds=60)) == []
    assert sorted(await site.kinds(Scope(older_seconds=1))) == [
        (Kind.SILENT, 1),
        (Kind.OVERDUE, 1),
    ]
    await site.mend(Scope(older_seconds=1))
    assert await site.kinds() == []
    states = await site.rows("SELECT id, state, attempt, losses FROM millrace.subtasks")
    assert (lost, "ready", 2, 1) in states
    assert (late, "expired") in await site.rows("SELECT id, state FROM millrace.requests")


async def test_a_request_that_nothing_moves_is_taken_as_far_as_it_goes(site: Site) -> None:
    request, _ = await site.add()
    await site.sql(
        "UPDATE millrace.subtasks SET state = 'succeeded', text = 'flour', finished_at = now()"
    )
    await site.sql("DELETE FROM millrace.outbox")
    [finding] = (await site.look()).findings
    assert (finding.kind, finding.ids) == (Kind.IDLE, (request,))
    await site.mend()
    assert await site.kinds() == []
    [(state, answer)] = await site.rows("SELECT state, answer FROM millrace.requests")
    assert state == "completed"
    assert "flour" in str(answer)


async def test_every_dead_letter_is_explained_by_where_its_subtask_stands(site: Site) -> None:
    _, [queued] = await site.queued()
    _, [ended] = await site.queued()
    await site.sql(
        f"UPDATE millrace.subtasks SET state = 'dead', finished_at = now() WHERE id = '{ended}'"
    )
    async with site.engine.connect() as connection:
        known = await facts.standing(connection, [queued, ended])
    said = {i: explain(a_subtask(subtask=i), known.get(i)) for i in (queued, ended, uuid4())}
    assert "reconcile --fix" in said.pop(queued)
    assert said.pop(ended) == f"its subtask is {SubtaskState.DEAD}"
    assert next(iter(said.values())) == "its subtask is not in this database"
