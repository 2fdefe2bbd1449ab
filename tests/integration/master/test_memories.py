"""The loop of memory: one conversation does not stop the others, and a second try nothing new."""

import json
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import conversations, new_requests, requests, summaries
from db.conversations import StoredConversation
from db.tenancy import as_tenant
from master import memories
from master.memories import Memories
from master.planning.question import Question
from master.recall import Recall
from master.submit import Asker, Terms
from queue_schemas.states import RequestState
from tests.unit.planning.fleets import fleet, small

WINDOW = 4


class Broken(Exception):
    """What nobody has thought of."""


class Submitting:
    """Submit, as far as the database sees it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.asked: list[Question] = []
        self.refuse: UUID | None = None

    async def __call__(self, _: Any, question: Question, who: Asker, terms: Terms) -> Any:
        if terms.conversation == self.refuse:
            raise Broken
        stored = {"messages": list(question.messages), "task": question.task}
        row = new_requests.NewRequest(
            uuid4(),
            who.tenant,
            who.end_user,
            "mill",
            json.dumps(stored | {"response": terms.note}),
            "{}",
            1,
            None,
            600.0,
            idempotency_key=terms.idempotency_key,
            conversation=terms.conversation,
        )
        async with self._engine.begin() as connection:
            await new_requests.add(connection, row, [])
        self.asked.append(question)
        return SimpleNamespace(request=row.id)


@pytest.fixture
def submitting(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Submitting:
    made = Submitting(engine)
    monkeypatch.setattr(memories, "submit", made)
    return made


def loop_of(engine: AsyncEngine, *, forget_late: Any = None, recall: Any = None) -> Memories:
    known = fleet(small(context_length=32_000))
    submission: Any = SimpleNamespace(engine=engine, view=SimpleNamespace(fleet=lambda: known))
    return Memories(submission, recall, WINDOW, forget_late)


async def talk(engine: AsyncEngine, tenant: UUID) -> StoredConversation:
    async with as_tenant(engine, tenant) as connection:
        of = await conversations.add(connection, tenant, "ada")
    for number in range(8):
        await said(engine, of, f"answer {number}")
    async with as_tenant(engine, tenant) as connection:
        await conversations.touch(connection, tenant, of.id, None, due=True)
    return of


async def said(engine: AsyncEngine, of: StoredConversation, answer: str) -> None:
    question = json.dumps({"messages": [{"role": "user", "content": "Why?"}], "task": None})
    row = new_requests.NewRequest(
        uuid4(), of.tenant, "ada", "mill", question, "{}", 1, None, 600.0, conversation=of.id
    )
    async with engine.begin() as connection:
        await new_requests.add(connection, row, [])
        state = RequestState.COMPLETED
        await requests.finish(connection, row.id, state, answer=answer, finish_reason="stop")


async def one(engine: AsyncEngine, query: str, **values: Any) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(text(query), values)).one()


async def test_a_summary_covers_what_its_request_was_asked_about(
    engine: AsyncEngine, tenant: UUID, submitting: Submitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, loop = await talk(engine, tenant), loop_of(engine)

    async def away(*_: Any) -> bool:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(summaries, "begin", away)
        with pytest.raises(ConnectionError):
            await loop.summarise()
    for number in range(8, 11):
        await said(engine, of, f"answer {number}")
    await loop.summarise()
    assert len(submitting.asked) == 1  # the second try finds the request of the first
    query = "SELECT summarising FROM millrace.conversations WHERE id = :id"
    [begun] = await one(engine, query, id=of.id)
    covered = """
        SELECT max(answer), count(*) FROM millrace.requests
         WHERE answer IS NOT NULL AND created_at <= CAST(CAST(:until AS text) AS timestamptz)
    """
    last, count = await one(engine, covered, until=begun["until"])
    assert (count, begun["exchanges"]) == (6, 6)
    material = str(submitting.asked[0].messages)
    assert last in material
    assert "answer 6" not in material


async def test_a_conversation_that_cannot_be_summarised_does_not_stop_the_others(
    engine: AsyncEngine, tenant: UUID, submitting: Submitting
) -> None:
    first, second = [await talk(engine, tenant) for _ in range(2)]
    submitting.refuse = first.id
    await loop_of(engine).summarise()
    query = """
        SELECT summarising IS NULL, summarise_at > now(), summary_failures
          FROM millrace.conversations WHERE id = :id
    """
    assert tuple(await one(engine, query, id=first.id)) == (True, True, 1)
    assert tuple(await one(engine, query, id=second.id)) == (False, False, 0)


async def test_a_conversation_that_cannot_be_embedded_does_not_stop_the_others(
    engine: AsyncEngine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        await talk(engine, tenant)
    registry: Any = SimpleNamespace(default_embedding=lambda: SimpleNamespace(name="tiny"))
    recall = Recall(engine, SimpleNamespace(), lambda: registry, 0.5)  # type: ignore[arg-type]  # no engine is asked
    tried: list[UUID] = []

    async def embed(taken: Any, _: str) -> int:
        tried.append(taken.id)
        if len(tried) == 1:
            raise Broken
        return 8

    monkeypatch.setattr(recall, "_embed", embed)
    assert (await recall.embed_new(), len(tried)) == (8, 2)
