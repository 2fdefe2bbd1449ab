"""What was deleted goes also where a request was running, or was stored just then."""

import json
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import conversations, new_requests, requests
from db.conversations import StoredConversation
from db.tenancy import as_tenant
from master.forgetting import forget, forget_late
from master.redrive import NotRedrivable, redrive
from queue_schemas.states import RequestState

SECRET = "xyzzy"


class Master:
    """What forgetting needs of a master."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.cancelled: list[UUID] = []

    async def cancel(self, request: UUID, tenant: UUID) -> bool:
        self.cancelled.append(request)
        await ended(self.engine, request, RequestState.CANCELLED)
        return True

    async def forget_late(self) -> None:
        """As if the time for it had come."""
        async with self.engine.begin() as connection:
            await connection.execute(text("UPDATE millrace.forgotten SET look_at = now()"))
        await forget_late(self.engine, self.cancel)

    async def left(self, table: str = "requests") -> int:
        query = f"SELECT count(*) FROM millrace.{table} t WHERE CAST(t.* AS text) LIKE :word"
        return await self.scalar(query, word=f"%{SECRET}%")

    async def scalar(self, query: str, **values: Any) -> Any:
        async with self.engine.connect() as connection:
            return await connection.scalar(text(query), values)


@pytest.fixture
def master(engine: AsyncEngine) -> Master:
    return Master(engine)


async def begun(engine: AsyncEngine, tenant: UUID) -> StoredConversation:
    async with as_tenant(engine, tenant) as connection:
        return await conversations.add(connection, tenant, "ada")


async def asked(engine: AsyncEngine, tenant: UUID, of: UUID | None, **more: Any) -> UUID:
    """A request that runs and whose prompt has the secret; `more` is of its question or row."""
    said = [{"role": "user", "content": SECRET}]
    step = {"key": "answer", "model": "mill", "messages": said}
    plan = {"strategy": "direct", "aggregator": "single", "steps": [step]}
    question = {"model": "mill", "messages": said, "parameters": {}, "task": None, "stream": False}
    question |= {"messages": [], **more} if "remembered" in more else {}
    row = new_requests.NewRequest(
        uuid4(),
        tenant,
        "ada",
        "mill",
        json.dumps(question),
        json.dumps(plan),
        1,
        None,
        600.0,
        conversation=of,
        previous=more.get("previous"),
    )
    async with engine.begin() as connection:
        await new_requests.add(connection, row, [])
    return row.id


async def ended(
    engine: AsyncEngine, request: UUID, state: RequestState = RequestState.COMPLETED
) -> None:
    async with engine.begin() as connection:
        text_ = "It is that." if state is RequestState.COMPLETED else None
        await requests.finish(connection, request, state, answer=text_, finish_reason="stop")


def recalling(request: UUID, conversation: UUID) -> dict[str, Any]:
    one = {"request": str(request), "conversation": str(conversation), "score": 1, "text": SECRET}
    return {"conversation": str(uuid4()), "note": SECRET, "recalled": [one], "messages": []}


async def test_who_was_running_loses_the_words_when_it_has_ended(
    engine: AsyncEngine, tenant: UUID, master: Master
) -> None:
    gone, other = await begun(engine, tenant), await begun(engine, tenant)
    said = await asked(engine, tenant, gone.id)
    await ended(engine, said)
    given = recalling(said, gone.id)
    running = await asked(engine, tenant, other.id, remembered=given)
    failed = await asked(engine, tenant, other.id, remembered=given)
    await ended(engine, failed, RequestState.FAILED)
    running_master: Any = SimpleNamespace(engine=engine, cancel=master.cancel)
    await forget(running_master, tenant, gone.id)
    assert await master.left() == 1
    late = await asked(engine, tenant, other.id, remembered=given)  # it had read it before
    await master.forget_late()
    assert await master.left() == 2
    for request in (running, late):
        await ended(engine, request)
    await master.forget_late()
    assert (await master.left(), await master.left("forgotten"), master.cancelled) == (0, 0, [])
    query = "SELECT answer FROM millrace.requests WHERE id = :id"
    assert await master.scalar(query, id=running) == "It is that."
    with pytest.raises(NotRedrivable, match="deleted since"):
        await redrive(engine, failed)


async def test_what_went_on_from_it_just_then_is_stopped_and_erased(
    engine: AsyncEngine, tenant: UUID, master: Master
) -> None:
    gone = await begun(engine, tenant)
    said = await asked(engine, tenant, gone.id)
    await ended(engine, said)
    running_master: Any = master
    await forget(running_master, tenant, gone.id)
    late = await asked(engine, tenant, None, previous=said)
    later = await asked(engine, tenant, None, previous=late)
    await ended(engine, later)
    await master.forget_late()
    assert master.cancelled == [late]
    await master.forget_late()
    assert await master.left() == 0


async def test_a_mark_goes_after_an_hour_unless_somebody_still_runs(
    engine: AsyncEngine, tenant: UUID, master: Master
) -> None:
    gone, other = await begun(engine, tenant), await begun(engine, tenant)
    said = await asked(engine, tenant, gone.id)
    await ended(engine, said)
    running = await asked(engine, tenant, other.id, remembered=recalling(said, gone.id))
    running_master: Any = master
    await forget(running_master, tenant, gone.id)
    async with engine.begin() as connection:
        past = "UPDATE millrace.forgotten SET forgotten_at = now() - interval '2 hours'"
        await connection.execute(text(past))
    marks = "SELECT count(*) FROM millrace.forgotten"
    await master.forget_late()
    assert await master.scalar(marks) == 1
    await ended(engine, running)
    await master.forget_late()
    assert (await master.scalar(marks), await master.left()) == (0, 0)


async def test_one_mark_that_cannot_be_dealt_with_does_not_stop_the_others(
    engine: AsyncEngine, tenant: UUID, master: Master
) -> None:
    talks = [await begun(engine, tenant) for _ in range(3)]
    other, late = talks.pop(), []
    running_master: Any = master
    for gone in talks:
        said = await asked(engine, tenant, gone.id)
        await ended(engine, said)
        await forget(running_master, tenant, gone.id)
        late.append(await asked(engine, tenant, other.id, remembered=recalling(said, gone.id)))
        await ended(engine, late[-1])
    async with engine.begin() as connection:
        spoilt = "UPDATE millrace.requests SET plan = '[]' WHERE id = :id"
        await connection.execute(text(spoilt), {"id": late[0]})
    await master.forget_late()
    query = "SELECT CAST(question AS text) LIKE '%xyzzy%' FROM millrace.requests WHERE id = :id"
    assert [await master.scalar(query, id=id_) for id_ in late] == [True, False]
