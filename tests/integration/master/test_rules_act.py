"""An approved rule changes the next answer, the record says so, and a rollback undoes it."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from master.api.answers import RequestRecord
from queue_schemas.registry import Registry
from tests.integration.master.mill import Mill, a_script, installation
from tests.integration.master.test_growing_plans import rule as scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")

RHYME, PROSE = "Answer in rhyme.", "Answer in prose."
SAYINGS = [
    scripted("You review the draft", verdict="reject", comments="", score=1),
    {"contains": RHYME, "text": "{model} rhymes"},
    {"contains": PROSE, "text": "{model} tells"},
]


def writer(name: str) -> dict[str, Any]:
    """A model that repeats what its instructions say."""
    return a_script(name, text="{model} speaks", rules=SAYINGS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mill(shared_url: str) -> AsyncGenerator[Mill, None]:
    """One installation for all: each test has a topic of its own, so no rule meets another."""
    async with installation(shared_url, writer("mill"), writer("wheel")) as made:
        yield made


async def proposed(mill: Mill, topic: str, **change: Any) -> dict[str, Any]:
    """A version of the rule that has the name of its topic."""
    body = {"name": topic, "scope": {"topic": [topic]}, "change": change}
    answer = await mill.http.post("/v1/rules", json=body)
    assert answer.status_code in {200, 201}, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def decided(mill: Mill, path: str, **body: Any) -> None:
    answer = await mill.http.post(f"/v1/rules/{path}", json=body)
    assert answer.status_code == 200, answer.text


async def approved(mill: Mill, topic: str, **change: Any) -> dict[str, Any]:
    made = await proposed(mill, topic, **change)
    await decided(mill, f"{made['id']}/approve")
    return made


async def asked(mill: Mill, topic: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """The answer, and the record of its request."""
    answer = await mill.ask(f"What is the {topic}?", **more)
    assert answer.status_code == 200, answer.text
    said = answer.json()["choices"][0]["message"]["content"]
    return said, await mill.record(answer.headers["x-millrace-request-id"])


async def said(mill: Mill, topic: str, **more: Any) -> str:
    return (await asked(mill, topic, **more))[0]


def rules_of(record: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(each["name"], each["version"], each["arm"]) for each in record["plan"]["rules"]]


async def test_an_approved_prompt_changes_the_next_answer_until_it_is_taken_back(
    mill: Mill,
) -> None:
    first = await proposed(mill, "sea", kind="prompt", text=RHYME)
    assert await said(mill, "sea") == "mill speaks", "nobody has approved it"
    await decided(mill, f"{first['id']}/approve")
    answer, record = await asked(mill, "sea")
    assert answer == "mill rhymes"
    RequestRecord.model_validate(record)
    [used] = record["plan"]["rules"]
    assert used == {
        "id": first["id"],
        "name": "sea",
        "version": 1,
        "arm": "active",
        "model": None,
        "kind": "prompt",
        "change": {"kind": "prompt", "text": RHYME},
    }
    assert await said(mill, "lake") == "mill speaks"
    await approved(mill, "sea", kind="prompt", text=PROSE)
    answer, record = await asked(mill, "sea")
    assert (answer, rules_of(record)) == ("mill tells", [("sea", 2, "active")])
    await decided(mill, "sea/rollback")
    answer, record = await asked(mill, "sea")
    assert (answer, rules_of(record)) == ("mill rhymes", [("sea", 1, "active")])
    await decided(mill, "sea/rollback")
    answer, record = await asked(mill, "sea")
    assert (answer, rules_of(record)) == ("mill speaks", [])
    [stored] = await mill.rows(
        "SELECT count(*) FROM millrace.requests WHERE question->>'messages' LIKE '%Answer in%'"
    )
    assert stored[0] == 0, "a rule stands in a stored conversation"
    page = (await mill.http.get("/openapi.json")).json()
    assert "UsedRule" in page["components"]["schemas"]
    metrics = (await mill.http.get("/metrics")).text
    assert 'millrace_rules_used_total{arm="active",kind="prompt"}' in metrics


async def test_streams_parts_and_grown_steps_are_told(mill: Mill) -> None:
    await approved(mill, "wind", kind="prompt", text=RHYME)
    assert (await mill.streamed("What is the wind?")).text == "mill rhymes"
    parts = "1. Explain what the wind is\n2. Explain what the weather is"
    text = (await mill.streamed(parts, "millrace/split")).text
    assert text.count("rhymes") == 2
    _, record = await asked(mill, "wind", model="millrace/crew")
    texts = {subtask["step"]: subtask["text"] for subtask in record["subtasks"]}
    assert texts.keys() == {"research", "draft", "review", "revision"}
    assert (texts["research"], texts["draft"], texts["revision"]) == (
        "mill speaks",
        "mill rhymes",
        "mill rhymes",
    )
    assert rules_of(record) == [("wind", 1, "active")]


async def test_a_new_rule_is_a_new_question_for_the_cache(mill: Mill) -> None:
    async def remembered() -> tuple[str, str | None]:
        answer = await mill.ask("What is the rain?", cache=60)
        content = answer.json()["choices"][0]["message"]["content"]
        return content, answer.headers.get("x-millrace-cache")

    assert [await remembered() for _ in range(2)] == [
        ("mill speaks", "miss"),
        ("mill speaks", "hit"),
    ]
    await approved(mill, "rain", kind="prompt", text=RHYME)
    assert [await remembered() for _ in range(2)] == [
        ("mill rhymes", "miss"),
        ("mill rhymes", "hit"),
    ]
    tried = await proposed(mill, "rain", kind="prompt", text=PROSE)
    await decided(mill, f"{tried['id']}/try", share=1.0)
    assert [await remembered() for _ in range(2)] == [("mill tells", None)] * 2
    await decided(mill, f"{tried['id']}/reject")
    assert await remembered() == ("mill rhymes", "hit")
    await decided(mill, "rain/rollback")
    assert await remembered() == ("mill speaks", "hit")


async def test_a_canary_answers_its_share_and_the_active_version_the_rest(mill: Mill) -> None:
    await approved(mill, "snow", kind="prompt", text=RHYME)
    tried = await proposed(mill, "snow", kind="prompt", text=PROSE)
    await decided(mill, f"{tried['id']}/try", share=0.5)
    seen = set()
    for _ in range(60):
        answer, record = await asked(mill, "snow")
        seen.add((answer, tuple(rules_of(record))))
        if len(seen) > 1:
            break
    assert seen == {
        ("mill tells", (("snow", 2, "canary"),)),
        ("mill rhymes", (("snow", 1, "active"), ("snow", 2, "control"))),
    }


async def test_a_shadow_counts_and_changes_nothing(mill: Mill) -> None:
    watched = await proposed(mill, "fog", kind="prompt", text=RHYME)
    await decided(mill, f"{watched['id']}/try")
    answer, record = await asked(mill, "fog")
    assert (answer, rules_of(record)) == ("mill speaks", [("fog", 1, "shadow")])


async def test_a_route_to_a_model_that_left_the_registry_is_left_out(mill: Mill) -> None:
    await approved(mill, "storm", kind="route", model="wheel")
    answer, record = await asked(mill, "storm", model="millrace/auto")
    assert (answer, rules_of(record)) == ("wheel speaks", [("storm", 1, "active")])
    before = mill.running.view.registry
    alone = Registry(models=tuple(m for m in mill.registry.models if m.name == "mill"))
    mill.running.view.registry = lambda: alone
    try:
        answer, record = await asked(mill, "storm", model="millrace/auto")
    finally:
        mill.running.view.registry = before
    assert (answer, rules_of(record)) == ("mill speaks", [])


async def test_auto_takes_the_strategy_that_a_rule_names_and_goes_on_with_it(mill: Mill) -> None:
    await approved(mill, "hail", kind="route", strategy="crew")
    _, record = await asked(mill, "hail", model="millrace/auto")
    assert (record["model"], record["strategy"]) == ("millrace/auto", "crew")
    assert len(record["subtasks"]) == 4
    assert "the rule hail (version 1) says so" in record["plan"]["gate"]["reason"]
    assert rules_of(record) == [("hail", 1, "active")]


async def test_a_background_prompt_has_no_rules(mill: Mill) -> None:
    await approved(mill, "frost", kind="prompt", text=RHYME)
    mill.http.headers["x-millrace-task"] = "title_generation"
    try:
        answer, record = await asked(mill, "frost")
    finally:
        del mill.http.headers["x-millrace-task"]
    assert (answer, rules_of(record)) == ("mill speaks", [])
