"""A question that a model takes apart: from planning to running to completed."""

import json
from typing import Any

import pytest

from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import MakeProvider, Mill, Streamed, a_script
from worker.providers.registry import make_provider

QUESTION = (
    "I keep wondering whether an old mill in our village could still grind flour today and "
    "what somebody would have to repair before its wheel turns again in the little river "
    "behind the church without spending a fortune on it"
)
PROPOSAL = {
    "parts": [
        {"title": "The wheel", "prompt": "Say what the wheel needs.", "depends_on": []},
        {"title": "The stone", "prompt": "Say what the stone needs.", "depends_on": []},
        {"title": "The bill", "prompt": "Say what it costs.", "depends_on": [1, 2]},
    ]
}


async def make(
    make_mill: MakeMill, answer: str, provider: MakeProvider = make_provider, **options: Any
) -> Mill:
    rule = {"contains": "You plan how to answer a question", "text": answer}
    planner = a_script("planner", rules=[rule], tokens_per_second=50, **options)
    mill = a_script("mill", text="{step} of {model}", tokens_per_second=50)
    return await make_mill(mill, planner, roles={"plan": "planner"}, provider=provider)


async def streamed(mill: Mill) -> tuple[Streamed, dict[str, Any]]:
    """The stream and its record, which agree."""
    got = await mill.streamed(QUESTION, "millrace/split")
    record = await mill.record(got.request)
    assert got.ends_once()
    assert record["state"] == "completed", record["error"]
    assert record["answer"] == got.text
    await mill.idle()
    return got, record


async def test_the_parts_that_a_model_proposed_are_answered(make_mill: MakeMill) -> None:
    mill = await make(make_mill, json.dumps(PROPOSAL))
    got, record = await streamed(mill)
    keys = ["plan", "part-1", "part-2", "part-3"]
    assert [step["key"] for step in record["plan"]["steps"]] == keys
    assert [subtask["step"] for subtask in record["subtasks"]] == keys
    assert {subtask["state"] for subtask in record["subtasks"]} == {"succeeded"}
    assert record["plan"]["steps"][3]["depends_on"] == ["part-1", "part-2"]
    for part in PROPOSAL["parts"]:
        assert f"## {part['title']}" in got.text
    assert "parts" not in got.text, "the plan itself is not part of the answer"


async def test_the_request_is_in_planning_while_a_model_plans(make_mill: MakeMill) -> None:
    gates = Gates()
    mill = await make(make_mill, json.dumps(PROPOSAL), provider=gates)
    async with mill.stream(QUESTION, "millrace/split") as response:
        request = response.headers["x-millrace-request-id"]
        assert await mill.until_state(request, "planning")
        gates.open("planner")
        assert await mill.until_state(request, "running")
        gates.open("mill")
        text = (await response.aread()).decode()
    assert (await mill.record(request))["state"] == "completed"
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "answer",
    [
        "I would rather talk about the weather.",
        '{"parts": [',
        '{"parts": []}',
        '{"parts": [{"title": "One", "prompt": "Only one part."}]}',
        '{"parts": [{"title": "A", "prompt": "a", "depends_on": [2]},'
        ' {"title": "B", "prompt": "b", "depends_on": [1]}]}',
        '{"parts": [{"title": "A", "prompt": "a"}, {"title": "A", "prompt": "a"}]}',
        '{"parts": [{"title": "A", "prompt": "a"}, {"title": "B", "prompt": "b", "kind": "x"}]}',
        "[" * 20_000,
        "",
    ],
    ids=["prose", "cut", "empty", "one", "circle", "twins", "unknown kind", "deep", "nothing"],
)
async def test_a_silly_plan_falls_back_to_one_answer(make_mill: MakeMill, answer: str) -> None:
    mill = await make(make_mill, answer)
    got, record = await streamed(mill)
    assert [step["key"] for step in record["plan"]["steps"]] == ["plan", "answer"]
    assert "could not be used" in record["plan"]["reason"]
    assert got.text == "answer of mill"


async def test_a_planner_that_fails_falls_back_to_one_answer(make_mill: MakeMill) -> None:
    refused = {"kind": "fail", "error_kind": "permanent", "after_tokens": 3}
    mill = await make(make_mill, json.dumps(PROPOSAL), faults=[refused])
    got, record = await streamed(mill)
    assert [s["state"] for s in record["subtasks"]] == ["failed", "succeeded"]
    assert "it failed" in record["plan"]["reason"]
    assert got.text == "answer of mill"


async def test_a_request_deleted_while_it_is_planned_is_cancelled(make_mill: MakeMill) -> None:
    mill = await make(make_mill, json.dumps(PROPOSAL), provider=Gates())  # it never goes on
    async with mill.stream(QUESTION, "millrace/split") as response:
        request = response.headers["x-millrace-request-id"]
        await mill.until_state(request, "planning")
        await mill.http.delete(f"/v1/requests/{request}")
        text = (await response.aread()).decode()
    assert text.count('"code":"cancelled"') == 1
    assert text.endswith("data: [DONE]\n\n")
    await mill.idle()
    record = await mill.record(request)
    assert [s["state"] for s in record["subtasks"]] == ["cancelled"]
