"""Ensemble, crew and router: streamed, recorded, cancelled and resumed like any other request."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, Streamed, a_script, installations
from tests.integration.master.responses_client import Events, create, resume

QUESTION = "Why is the sea salt?"
LONG = "It is salt because of the rivers, which carry it there from the rocks that they wash."


def rule(contains: str, **said: Any) -> dict[str, str]:
    return {"contains": contains, "text": json.dumps(said)}


JUDGE = a_script(
    "judge",
    text=LONG,
    tokens_per_second=100,
    rules=[
        rule("You compare answers", reason="it says more", scores=[20, 80]),
        rule("You review the draft", verdict="accept", score=70, comments=""),
        rule("You check an answer", reason="right", score=75),
        rule("Say what the last message", kind="analytical"),
    ],
)
STRICT = JUDGE | {
    "options": JUDGE["options"]
    | {
        "rules": [
            rule("You review the draft", verdict="reject", score=30, comments="Say more."),
            rule("You check an answer", reason="wrong", score=20),
        ]
    }
}
ROLES = {"judge": "judge", "classify": "judge", "research": "judge", "write": "mill"}
TWO = {"candidates": ("mill", "wheel")}
WRITERS = (
    a_script("mill", text="The mill says: " + LONG, tokens_per_second=100),
    a_script("wheel", text="The wheel says: " + LONG, tokens_per_second=100),
)


async def make(make_mill: MakeMill, judge: dict[str, Any] = JUDGE, **changes: Any) -> Mill:
    return await make_mill(*WRITERS, judge, **{"roles": ROLES, "ensemble": TWO, **changes})


async def answered(mill: Mill, model: str) -> dict[str, Any]:
    """The record of a streamed request, which agrees with what was shown."""
    got = await mill.streamed(QUESTION, model)
    record = await mill.record(got.request)
    assert got.ends_once()
    assert record["state"] == "completed", record["error"]
    assert got.text == record["answer"]
    await mill.idle()
    return record


def steps(record: dict[str, Any]) -> list[str]:
    return [subtask["step"] for subtask in record["subtasks"]]


async def test_an_ensemble_shows_one_of_its_answers_and_keeps_all(make_mill: MakeMill) -> None:
    mill = await make(make_mill, ensemble=TWO)
    record = await answered(mill, "millrace/ensemble")
    assert steps(record) == ["candidate-1", "candidate-2", "judge-1", "judge-2"]
    plan = record["plan"]
    texts = {subtask["step"]: subtask["text"] for subtask in record["subtasks"]}
    # The judge of this script likes whatever comes second, so swapping makes them equal.
    assert [j["scores"] for j in plan["judgements"]] == [
        {"candidate-1": 20, "candidate-2": 80},
        {"candidate-2": 20, "candidate-1": 80},
    ]
    assert plan["chosen"] == "candidate-1"
    assert record["answer"] == texts["candidate-1"] == "The mill says: " + LONG
    assert texts["candidate-2"] == "The wheel says: " + LONG


async def test_a_fused_answer_streams_while_it_is_written(make_mill: MakeMill) -> None:
    gates = Gates(5)
    mill = await make_mill(
        *WRITERS, JUDGE, roles=ROLES, ensemble={**TWO, "mode": "fuse"}, provider=gates
    )
    for writer in ("mill", "wheel"):
        gates.open(writer)
    early: list[str] = []

    async def seen(got: Streamed) -> None:
        if got.text and not early:
            early.append(got.text)
            gates.open("judge")  # who would wait for the whole text would wait for ever

    got = await mill.streamed(QUESTION, "millrace/ensemble", seen=seen)
    assert got.text == LONG
    assert len(early[0]) < len(LONG)


async def test_a_candidate_that_takes_too_long_is_done_without(make_mill: MakeMill) -> None:
    gates = Gates(1)  # the second one never goes on
    mill = await make_mill(
        *WRITERS, JUDGE, roles=ROLES, ensemble={**TWO, "seconds": 600}, provider=gates
    )
    gates.open("mill")
    gates.open("judge")
    answering = asyncio.create_task(answered(mill, "millrace/ensemble"))

    async def one_is_there_and_one_runs() -> bool:
        rows = await mill.rows("SELECT step, state FROM millrace.subtasks ORDER BY step")
        return [tuple(row) for row in rows] == [
            ("candidate-1", "succeeded"),
            ("candidate-2", "running"),
        ]

    await until(one_is_there_and_one_runs, 30)
    async with mill.running.engine.begin() as connection:  # as if it had taken that long
        passed = "UPDATE millrace.subtasks SET deadline_at = now() WHERE step = 'candidate-2'"
        await connection.execute(text(passed))
    record = await answering
    late = record["subtasks"][1]
    assert (late["state"], late["error"]["code"]) == ("failed", "too_slow")
    assert record["plan"]["chosen"] == "candidate-1"
    assert steps(record) == ["candidate-1", "candidate-2"]

    async def its_cost_is_known() -> bool:
        rows = await mill.rows("SELECT outcome FROM millrace.attempts")
        return sorted(row[0] for row in rows) == ["cancelled", "completed"]

    await until(its_cost_is_known, 30)


async def test_a_request_of_which_no_candidate_answers_has_failed(make_mill: MakeMill) -> None:
    fault = {"kind": "fail", "error_kind": "permanent", "code": "engine_broken"}
    broken = [a_script(name, faults=[fault]) for name in ("mill", "wheel", "judge")]
    mill = await make_mill(*broken, roles=ROLES, ensemble=TWO)
    answer = await mill.ask(QUESTION, "millrace/ensemble")
    assert answer.status_code >= 500
    assert answer.json()["error"]["code"] == "engine_broken"
    await mill.idle()


async def test_a_crew_shows_an_accepted_draft(make_mill: MakeMill) -> None:
    record = await answered(await make(make_mill), "millrace/crew")
    assert steps(record) == ["research", "draft", "review"]
    assert record["plan"]["chosen"] == "draft"
    assert record["plan"]["judgements"][0]["passed"] is True


async def test_a_judge_that_spells_a_character_no_database_takes_is_read(
    make_mill: MakeMill,
) -> None:
    odd = rule("You review the draft", verdict="accept", comments="odd\0", score=1)
    judge = a_script("judge", rules=[odd])
    record = await answered(await make(make_mill, judge), "millrace/crew")
    assert record["plan"]["judgements"][0]["reason"] == "odd"
    assert all(len(subtask["attempts"]) == 1 for subtask in record["subtasks"])


async def test_a_crew_revises_a_rejected_draft_once(make_mill: MakeMill) -> None:
    record = await answered(await make(make_mill, STRICT), "millrace/crew")
    assert steps(record) == ["research", "draft", "review", "revision"]
    assert record["plan"]["chosen"] == "revision"
    assert record["plan"]["judgements"][0]["reason"] == "Say more."


async def test_a_router_shows_what_passes_its_check(make_mill: MakeMill) -> None:
    record = await answered(await make(make_mill), "millrace/router")
    assert steps(record) == ["classify", "answer", "check"]
    assert record["plan"]["judgements"][0]["scores"] == {"answer": 75}
    assert "analytical" in record["reason"]


async def test_a_router_escalates_what_does_not(make_mill: MakeMill) -> None:
    larger = a_script("larger", text="Larger: " + LONG, entry={"price": {"completion": 9}})
    mill = await make_mill(WRITERS[0], larger, STRICT, roles=ROLES)
    record = await answered(mill, "millrace/router")
    assert steps(record) == ["classify", "answer", "check", "escalation"]
    assert record["answer"] == "Larger: " + LONG


@pytest.mark.parametrize("strategy", ["ensemble", "crew", "router"])
async def test_a_client_that_leaves_in_the_middle_stops_all_of_it(
    make_mill: MakeMill, strategy: str
) -> None:
    slow = [a_script(name, tokens=1000, tokens_per_second=20) for name in ("mill", "wheel")]
    mill = await make_mill(*slow, JUDGE, roles=ROLES, ensemble=TWO)
    asking = asyncio.create_task(mill.ask(QUESTION, f"millrace/{strategy}"))

    async def in_the_middle() -> bool:
        rows = await mill.rows("SELECT count(*) FROM millrace.subtasks WHERE state = 'running'")
        known = await mill.rows("SELECT kind FROM millrace.subtasks")
        return rows[0][0] > 0 and ("candidate",) in [tuple(row) for row in known]

    await until(in_the_middle, 30)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await mill.idle()
    assert [tuple(row) for row in await mill.rows("SELECT state FROM millrace.requests")] == [
        ("cancelled",)
    ]


@pytest.fixture
async def two(migrated_url: str) -> AsyncGenerator[list[Mill], None]:
    async with installations(
        migrated_url, *WRITERS, STRICT, masters=2, roles=ROLES, ensemble={**TWO, "mode": "fuse"}
    ) as mills:
        yield mills


@pytest.mark.parametrize("strategy", ["ensemble", "crew", "router"])
async def test_it_is_resumed_on_another_replica(two: list[Mill], strategy: str) -> None:
    one, other = two
    got = Events()
    asked = {"model": f"millrace/{strategy}", "input": QUESTION, "background": True}
    await create(one, got, lambda got: len(got.events) >= 2, **asked)
    await resume(other, got)
    assert got.rising()
    record = await one.until_state(got.id.removeprefix("resp_"), "completed")
    assert got.text == record["answer"]
