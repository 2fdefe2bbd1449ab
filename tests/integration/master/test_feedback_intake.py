"""What waits in the inbox becomes a judgement, or is refused, whatever happens to its message."""

import json
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from master import feedback_intake
from master.feedback_intake import Intake
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from queue_schemas import topology
from queue_schemas.codec import encode
from queue_schemas.messages import FeedbackNote
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, a_script

FAILING = a_script("broken", faults=[{"kind": "fail", "error_kind": "permanent"}])
FOREVER = 3600.0
"""Only messages say that something waits."""


@pytest.fixture
async def mill(make_mill: MakeMill) -> Mill:
    return await make_mill(a_script(), FAILING, feedback_seconds=FOREVER)


async def asked(mill: Mill, **more: Any) -> str:
    answer = await mill.ask("Why is the sea salt?", **more)
    return str(answer.headers["x-millrace-request-id"])


async def stored(
    mill: Mill, note: Any, source: str = "webhook", external: str | None = None
) -> str:
    """The id of a note that n8n stored."""
    query = text("""
        SELECT note FROM millrace.take_feedback(:source, CAST(:note AS jsonb), :external, 1)
    """)
    values = {"source": source, "note": json.dumps(note), "external": external}
    async with mill.running.engine.begin() as connection:
        return str(await connection.scalar(query, values))


async def tell(mill: Mill, note: str) -> None:
    """Send the message that says that a note waits, as n8n does: without a signature."""
    body = json.dumps({"version": 1, "type": "feedback", "note": note}).encode()
    await mill.running.bus.publish(topology.FEEDBACK.name, body)


async def fate(mill: Mill, note: str) -> tuple[str, str | None]:
    query = "SELECT state, problem FROM millrace.feedback_inbox WHERE id = :note"
    [(state, problem)] = await mill.rows(query, note=note)
    return state, problem


async def settled(mill: Mill, note: str) -> tuple[str, str | None]:
    async def done() -> tuple[str, str | None] | None:
        found = await fate(mill, note)
        return found if found != ("waiting", None) else None

    return await until(done, 30)


async def said(mill: Mill, request: str) -> list[tuple[str, float | None, str]]:
    found = (await mill.record(request))["judgements"]
    return [(j["rater"], j["score"], j["source"]) for j in found]


async def test_a_note_becomes_what_a_call_of_feedback_would_have_stored(mill: Mill) -> None:
    request = await asked(mill, user="alice")
    note = await stored(mill, {"request": request, "rating": -1, "user": "alice", "comment": "no"})
    for _ in range(2):
        await tell(mill, note)
    assert await settled(mill, note) == ("stored", None)
    assert await said(mill, request) == [("user:alice", 0.0, "api")]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "of another user": ({"rating": 1, "user": "bob"}, "other_user"),
    "of nobody": ({"rating": 1}, "other_user"),
    "no rating": ({"rating": 2, "user": "alice"}, "invalid_value"),
    "says nothing": ({"user": "alice"}, "invalid_value"),
    "unknown field": ({"rating": 1, "user": "alice", "tenant": "x"}, "unknown_parameter"),
    "unknown request": ({"rating": 1, "user": "alice", "request": str(uuid4())}, "not_found"),
    "no request": ({"rating": 1, "user": "alice", "request": 7}, "invalid_type"),
    "unknown part": ({"rating": 1, "user": "alice", "subtask": str(uuid4())}, "not_found"),
}


async def test_what_feedback_would_refuse_is_refused_with_its_code(mill: Mill) -> None:
    request = await asked(mill, user="alice")
    for what, (note, problem) in REFUSED.items():
        made = await stored(mill, {"request": request, **note})
        await tell(mill, made)
        assert (what, await settled(mill, made)) == (what, ("refused", problem))
    assert await said(mill, request) == []


async def test_what_is_no_note_is_put_aside_with_the_reason(mill: Mill) -> None:
    await mill.running.bus.publish(topology.FEEDBACK.name, b"no JSON")
    body, _ = encode(FeedbackNote(note=uuid4()))
    await mill.running.bus.publish(topology.FEEDBACK.name, body)

    async def both() -> list[str] | None:
        found = mill.quarantined()
        return found if len(found) == 2 else None

    reasons = await until(both, 30)
    assert any("Invalid JSON" in reason for reason in reasons)
    assert "there is no such note" in reasons


async def test_a_note_whose_message_was_lost_is_found(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_intake, "_OLDER_SECONDS", 60)  # longer than any pause in here
    request = await asked(mill, user="alice")
    note = await stored(mill, {"request": request, "stars": 10, "user": "alice"})
    intake = Intake(mill.running.engine, mill.running.bus, FOREVER)
    assert await intake.look_through() == 0  # its message may still be on its way
    async with mill.running.engine.begin() as connection:
        await connection.execute(
            text("UPDATE millrace.feedback_inbox SET received_at = now() - interval '1 hour'")
        )
    assert await intake.look_through() == 1
    assert await fate(mill, note) == ("stored", None)
    assert await said(mill, request) == [("user:alice", 1.0, "api")]


async def test_an_answer_that_has_not_ended_is_judged_later(make_mill: MakeMill) -> None:
    gates = Gates(1)
    mill = await make_mill(a_script(), feedback_seconds=FOREVER, provider=gates)
    body = {"model": "mill", "input": "Why?", "background": True, "user": "alice"}
    answer = await mill.http.post("/v1/responses", json=body)
    request = str(answer.headers["x-millrace-request-id"])
    note = await stored(mill, {"request": request, "rating": 1, "user": "alice"})
    await tell(mill, note)
    assert await settled(mill, note) == ("waiting", "not_ended")
    gates.open("mill")
    await mill.until_state(request, "completed")
    await tell(mill, note)

    async def is_stored() -> bool:
        return await fate(mill, note) == ("stored", None)

    await until(is_stored, 30)


RATING = {
    "id": "r1",
    "user_id": "alice",
    "type": "rating",
    "data": {"rating": 1, "comment": "rated in the page", "details": {"rating": 9}},
    "meta": {"message_id": "m1", "chat_id": "c1"},
    "updated_at": 1795220032,
}
HEADERS = {
    "X-OpenWebUI-User-Id": "alice",
    "X-OpenWebUI-Chat-Id": "c1",
    "X-Millrace-Message-Id": "m1",
}


async def test_a_rating_of_open_webui_is_joined_by_its_message(mill: Mill) -> None:
    answer = await mill.http.post("/v1/chat/completions", json=mill.body(), headers=HEADERS)
    request = str(answer.headers["x-millrace-request-id"])
    note = await stored(mill, RATING, "openwebui", "r1")
    await tell(mill, note)
    assert await settled(mill, note) == ("stored", None)
    assert await said(mill, request) == [("user:alice", 8 / 9, "openwebui")]
    foreign = {**RATING, "id": "r2", "user_id": "mallory"}
    other = await stored(mill, foreign, "openwebui", "r2")
    await tell(mill, other)
    assert await settled(mill, other) == ("refused", "other_user")


# --- doing it again ------------------------------------------------------------------------------


async def test_what_failed_is_done_again_once(mill: Mill) -> None:
    failed = await mill.ask(model="broken")
    request = failed.headers["x-millrace-request-id"]
    path = f"/v1/requests/{request}/retry"
    first, second = await mill.http.post(path), await mill.http.post(path)
    assert first.status_code == second.status_code == 200, first.text
    assert first.json() == {**second.json(), "fresh": True}
    assert first.json()["retry_of"] == request
    await mill.until_state(first.json()["id"], "failed")


async def test_what_did_not_fail_or_is_not_yours_is_not_done_again(mill: Mill) -> None:
    request = await asked(mill)
    answer = await mill.http.post(f"/v1/requests/{request}/retry")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_retriable")
    other = {"Authorization": f"Bearer {await make_key(mill.database_url, 'other', 'tests')}"}
    for unknown in (request, str(uuid4()), "nonsense"):
        answer = await mill.http.post(f"/v1/requests/{unknown}/retry", headers=other)
        assert answer.status_code == 404
