"""The inbox that n8n fills: no note keeps the others waiting, and no word outstays its use."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.memory import MemoryBroker, MemoryBus
from db import erasing, judgements
from db.judgements import StoredJudgement
from db.tenancy import as_tenant
from master.feedback_intake import Intake
from tests.integration.db.answered_chats import answered

FIRST = UUID(int=1)
SECRET = "xyzzy-plugh"
RATING = {
    "id": "r1",
    "user_id": "ann",
    "type": "rating",
    "data": {"rating": 1, "comment": SECRET},
    "meta": {"message_id": "m1", "chat_id": "c1"},
    "updated_at": 1,
}


async def taken(connection: AsyncConnection, note: Any, external: str | None = None) -> UUID:
    """The id of a note that n8n stored some time ago."""
    query = text("""
        SELECT note FROM millrace.take_feedback(:source, CAST(:note AS jsonb), :external, 1)
    """)
    source = "openwebui" if external else "webhook"
    given = {"source": source, "note": json.dumps(note), "external": external}
    made: UUID = await connection.scalar(query, given)
    await connection.execute(
        text("UPDATE millrace.feedback_inbox SET received_at = now() - interval '1 minute'")
    )
    return made


async def shown_to_ann(connection: AsyncConnection, tenant: UUID, request: UUID) -> None:
    """In Open WebUI, as the message that RATING is about."""
    query = text("""
        INSERT INTO millrace.openwebui_messages
               (tenant_id, message_id, request_id, user_id, chat_id)
        VALUES (:tenant, 'm1', :request, 'ann', 'c1')
    """)
    await connection.execute(query, {"tenant": tenant, "request": request})


async def inbox_of(engine: AsyncEngine) -> dict[UUID, tuple[str, str | None, dict[str, Any]]]:
    """State, problem and note of all."""
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT id, state, problem, note FROM millrace.feedback_inbox")
        )
        return {row[0]: (row[1], row[2], row[3]) for row in rows}


async def said(engine: AsyncEngine, tenant: UUID, request: UUID) -> list[StoredJudgement]:
    async with as_tenant(engine, tenant) as connection:
        return await judgements.of_request(connection, tenant, request, 10)


@pytest.fixture
def intake(engine: AsyncEngine) -> Intake:
    return Intake(engine, MemoryBus(MemoryBroker()), 3600.0)


async def test_a_note_that_nobody_can_read_keeps_no_other_waiting(
    engine: AsyncEngine, tenant: UUID, intake: Intake
) -> None:
    async with engine.begin() as connection:
        request = await answered(connection, tenant)
        bad = await taken(connection, {"request": str(request), "rating": 1})
        good = await taken(connection, {"request": str(request), "rating": 1})
        poison = """
            UPDATE millrace.feedback_inbox
               SET id = :first, note = CAST(:note AS jsonb) WHERE id = :id
        """
        note = f'{{"request": "{request}", "rating": {"1" * 5000}}}'
        await connection.execute(text(poison), {"first": FIRST, "note": note, "id": bad})
    assert await intake.look_through() == 2
    found = await inbox_of(engine)
    assert found[FIRST][:2] == ("refused", "unreadable")
    assert found[good][:2] == ("stored", None)


async def test_a_note_that_meets_a_fault_of_ours_waits_and_the_others_do_not(
    engine: AsyncEngine, tenant: UUID, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine.begin() as connection:
        request = await answered(connection, tenant)
        notes = sorted(
            [await taken(connection, {"request": str(request), "rating": 1}) for _ in range(2)]
        )
    take = Intake.take

    async def faulty(self: Intake, note: UUID) -> bool:
        if note == notes[0]:
            raise RuntimeError("a fault")
        return await take(self, note)

    monkeypatch.setattr(Intake, "take", faulty)
    await intake.look_through()
    found = await inbox_of(engine)
    assert [found[note][0] for note in notes] == ["waiting", "stored"]


async def test_what_was_handled_has_no_words_any_more_and_is_not_taken_twice(
    engine: AsyncEngine, tenant: UUID, intake: Intake
) -> None:
    async with engine.begin() as connection:
        request = await answered(connection, tenant)
        await shown_to_ann(connection, tenant, request)
        note = {"request": str(request), "rating": 1, "comment": SECRET}
        stored = await taken(connection, note)
        refused = await taken(connection, {**note, "request": str(uuid4())})
        shown = await taken(connection, RATING, "r1")
    await intake.look_through()
    assert await inbox_of(engine) == {
        stored: ("stored", None, {}),
        refused: ("refused", "not_found", {}),
        shown: ("stored", None, {}),
    }
    assert [made.comment for made in await said(engine, tenant, request)] == [SECRET] * 2
    async with engine.begin() as connection:
        again = await taken(connection, RATING, "r1")
        about = await connection.scalar(
            text("SELECT request_id FROM millrace.feedback_inbox WHERE id = :id"), {"id": shown}
        )
    assert (again, about, await intake.look_through()) == (shown, request, 0)


async def test_what_waits_is_erased_with_the_request_that_it_is_about(
    engine: AsyncEngine, tenant: UUID, intake: Intake
) -> None:
    async with engine.begin() as connection:
        request = await answered(connection, tenant)
        await shown_to_ann(connection, tenant, request)
        note = {"request": str(request), "comment": SECRET}
        waiting = await taken(connection, note)
        shown = await taken(connection, RATING, "r1")
        await erasing.erase(connection, {request: {"steps": []}})
        later = await taken(connection, note)
    assert (await inbox_of(engine))[waiting] == ("refused", "erased", {})
    await intake.look_through()
    found = await inbox_of(engine)
    assert found[shown] == ("refused", "unknown_message", {})
    assert found[later] == ("refused", "not_found", {})
    assert await said(engine, tenant, request) == []
