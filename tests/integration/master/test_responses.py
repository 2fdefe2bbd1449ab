"""`/v1/responses` takes what OpenAI's clients send, and answers in their shapes."""

import time
from typing import Any

import httpx2
import pytest
from openai.types.responses import Response

from millrace.one_machine import make_key
from queue_schemas.messages import SubtaskRequest
from queue_schemas.registry import Model
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script
from tests.integration.master.responses_client import Events, create
from worker.providers.scripted import Scripted

CALL = {
    "id": "call_7",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Ulm"}'},
}
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
RULES = [{"contains": "weather", "text": "", "tool_calls": [CALL]}]
SCRIPT = a_script(text="You said: {prompt}")


async def ask(mill: Mill, **body: Any) -> httpx2.Response:
    return await mill.http.post("/v1/responses", json={"model": "mill", "input": "Why?"} | body)


async def answered(mill: Mill, **body: Any) -> Response:
    answer = await ask(mill, **body)
    assert answer.status_code == 200, answer.text
    return Response.model_validate(answer.json(), strict=False)


async def refused(mill: Mill, **body: Any) -> tuple[str | None, str]:
    """Field and message of a 400."""
    answer = await ask(mill, **body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return error["param"], error["message"]


class Listening(Scripted):
    """Keeps what it was asked."""

    asked: list[SubtaskRequest]

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.asked = []

    def complete(self, subtask: SubtaskRequest) -> Any:
        self.asked.append(subtask)
        return super().complete(subtask)


async def listening(make_mill: MakeMill, script: dict[str, Any]) -> tuple[Mill, Listening]:
    mill = await make_mill(script, provider=Listening)
    engine = mill.providers["mill"]
    assert isinstance(engine, Listening)
    return mill, engine


async def test_an_input_is_answered_as_a_whole(make_mill: MakeMill) -> None:
    mill = await make_mill(SCRIPT)
    before = int(time.time())
    answer = await answered(
        mill, temperature=0.5, metadata={"order": "7"}, user="ada", max_output_tokens=100
    )
    assert answer.status == "completed"
    assert answer.output_text == "You said: Why?"
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert (answer.temperature, answer.metadata, answer.user) == (0.5, {"order": "7"}, "ada")
    retrieved = await mill.http.get(f"/v1/responses/{answer.id}")
    same = Response.model_validate(retrieved.json(), strict=False)
    # Of two clocks, and this process may have stood still between the two looks at them.
    assert before - 1 <= min(same.created_at, answer.created_at)
    assert max(same.created_at, answer.created_at) <= time.time() + 1
    times = {"created_at", "completed_at"}
    assert same.model_dump(exclude=times) == answer.model_dump(exclude=times)


async def test_what_is_asked_reaches_the_engine_as_a_chat(make_mill: MakeMill) -> None:
    mill, engine = await listening(make_mill, SCRIPT)
    await answered(
        mill,
        instructions="Be brief.",
        input=[
            {"role": "user", "content": "What is the weather?"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "[]"},
            {"type": "function_call_output", "call_id": "a", "output": "rain"},
            {
                "type": "function_call_output",
                "call_id": "b",
                "output": [{"type": "input_text", "text": "sun"}],
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "So so.", "annotations": []}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "And"}] * 2},
        ],
        tools=[TOOL],
        tool_choice={"type": "function", "name": "weather"},
        max_output_tokens=9,
        top_p=0.5,
        text={"format": {"type": "json_schema", "name": "w", "schema": {"type": "object"}}},
        reasoning={"effort": "low"},
    )
    [subtask] = engine.asked
    calls = [
        {"id": name, "type": "function", "function": {"name": "weather", "arguments": arguments}}
        for name, arguments in (("a", "{}"), ("b", "[]"))
    ]
    assert list(subtask.messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": "sun"},
        {"role": "assistant", "content": "So so."},
        {"role": "user", "content": "AndAnd"},
    ]
    assert subtask.parameters == {
        "max_tokens": 9,
        "top_p": 0.5,
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "w", "schema": {"type": "object"}},
        },
        "reasoning_effort": "low",
    }


async def test_an_image_reaches_the_engine(make_mill: MakeMill) -> None:
    mill, engine = await listening(make_mill, SCRIPT)
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEElEQVR4nGP4"
        "z4AV/McBRAGIrAfBkI0CzQAAAABJRU5ErkJggg=="
    )
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": pixel, "detail": "low"},
    ]
    await answered(mill, input=[{"role": "user", "content": parts}])
    [message] = engine.asked[0].messages
    assert message["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": pixel, "detail": "low"}},
    ]
    param, said = await refused(
        mill,
        input=[
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "http://169.254.169.254/"}],
            }
        ],
    )
    assert param == "input"
    assert "remote images" in said


async def test_a_tool_call_is_an_output_whole_and_streamed(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="fine", rules=RULES))
    whole = await answered(mill, input="How is the weather?", tools=[TOOL])
    [call] = whole.output
    assert call.type == "function_call"
    assert (call.call_id, call.name, call.arguments) == ("call_7", "weather", '{"city": "Ulm"}')
    got = Events()
    await create(mill, got, input="How is the weather?", tools=[TOOL])
    assert got.types == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert got.rising()
    assert [item["call_id"] for item in got.last["output"]] == ["call_7"]


async def test_a_conversation_goes_on_from_an_earlier_response(make_mill: MakeMill) -> None:
    mill, engine = await listening(make_mill, a_script(text="You said: {prompt}", rules=RULES))
    first = await answered(mill, input="One.", instructions="Be brief.")
    second = await answered(
        mill, input="Two.", instructions="Be long.", previous_response_id=first.id
    )
    third = await answered(mill, input="And the weather?", previous_response_id=second.id)
    result = {"type": "function_call_output", "call_id": "call_7", "output": "rain"}
    await answered(mill, input=[result], previous_response_id=third.id)
    assert list(engine.asked[1].messages) == [
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": "You said: One."},
        {"role": "user", "content": "Two."},
    ]
    assert [m["role"] for m in engine.asked[2].messages] == ["user", "assistant"] * 2 + ["user"]
    assert list(engine.asked[3].messages)[-2:] == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_7", "content": "rain"},
    ]
    assert second.previous_response_id == first.id
    rows = await mill.rows("SELECT previous_id FROM millrace.requests ORDER BY created_at")
    assert [row[0] and row[0].hex for row in rows][:2] == [None, first.id.removeprefix("resp_")]


async def test_a_conversation_cannot_go_on_from_what_has_no_answer(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="w", tokens=2000, tokens_per_second=50))
    answer = await ask(mill, background=True)
    running = answer.json()["id"]
    param, said = await refused(mill, previous_response_id=running)
    assert (param, "no answer" in said) == ("previous_response_id", True)
    await mill.http.delete(f"/v1/responses/{running}")
    await mill.idle()


async def test_the_end_of_the_tokens_is_an_incomplete_response(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="one two three four five"))
    got = Events()
    await create(mill, got, max_output_tokens=3)
    assert got.types[-1] == "response.incomplete"
    assert got.last["status"] == "incomplete"
    assert got.last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert got.last["output"][0]["status"] == "incomplete"
    assert got.text == got.last["output"][0]["content"][0]["text"] == "one two three"


async def test_a_failure_is_the_one_terminal_event(make_mill: MakeMill) -> None:
    fault = {"kind": "fail", "error_kind": "permanent", "code": "bad_request", "after_tokens": 2}
    mill = await make_mill(a_script(text="one two three", faults=[fault]))
    got = Events()
    await create(mill, got)
    assert got.types[-1] == "response.failed"
    assert got.last["status"] == "failed"
    assert got.last["error"]["code"] == "invalid_prompt"
    assert got.last["error"]["type"] == "bad_request"
    assert got.rising()
    whole = await ask(mill)
    assert (whole.status_code, whole.json()["error"]["code"]) == (400, "bad_request")
    request = whole.headers["x-millrace-request-id"].replace("-", "")
    kept = (await mill.http.get(f"/v1/responses/resp_{request}")).json()
    assert (kept["status"], kept["error"]["type"]) == ("failed", "bad_request")


async def test_a_deleted_response_stops_and_is_gone(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="w", tokens=2000, tokens_per_second=50))
    response = (await ask(mill, background=True)).json()["id"]
    path = f"/v1/responses/{response}"
    assert (await mill.http.get(path)).json()["status"] in {"queued", "in_progress"}
    deleted = await mill.http.delete(path)
    assert deleted.json() == {"id": response, "object": "response", "deleted": True}
    record = await mill.until_state(response.removeprefix("resp_"), "cancelled")
    assert record["state"] == "cancelled"
    for gone in (
        await mill.http.get(path),
        await mill.http.delete(path),
        await mill.http.post(f"{path}/cancel"),
        await ask(mill, previous_response_id=response),
    ):
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    await mill.idle()


async def test_a_response_of_another_tenant_does_not_exist(make_mill: MakeMill) -> None:
    mill = await make_mill(SCRIPT)
    response = (await answered(mill)).id
    other = {"Authorization": f"Bearer {await make_key(mill.database_url, 'rival', 'tests')}"}
    for strange in (response, "resp_" + 32 * "0", "resp_1", "x", response.upper()):
        path = f"/v1/responses/{strange}"
        body = {"model": "mill", "input": "?", "previous_response_id": strange}
        for answer in (
            await mill.http.get(path, headers=other),
            await mill.http.get(path, headers=other, params={"stream": "true"}),
            await mill.http.post(f"{path}/cancel", headers=other),
            await mill.http.delete(path, headers=other),
            await mill.http.post("/v1/responses", headers=other, json=body),
        ):
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "not_found"
    assert (await mill.http.get(f"/v1/responses/{response}")).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": []}, "input", "must not be empty"),
        ({"input": ""}, "input", "must not be empty"),
        ({"input": None}, "input", "must be a string"),
        ({"input": 7}, "input", "must be a string"),
        ({"input": [7]}, "input[0]", "not supported"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "'item_reference'"),
        ({"input": [{"role": "root", "content": "x"}]}, "input[0].role", "must be one of"),
        ({"input": [{"role": "user"}]}, "input[0].content", "is required"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0].content[0]",
            "'input_file'",
        ),
        (
            {"input": [{"type": "function_call_output", "output": "x"}]},
            "input[0].call_id",
            "is req",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "must be one of"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].function.name", "must match"),
        ({"tool_choice": "some"}, "tool_choice", "must be one of"),
        ({"temperature": 9}, "temperature", "at most 2"),
        ({"max_output_tokens": 0}, "max_output_tokens", "at least 1"),
        ({"background": "yes"}, "background", "must be true or false"),
        ({"stream": 1}, "stream", "must be true or false"),
        ({"metadata": {"a": 1}}, "metadata.a", "must be a string"),
        ({"conversation": {"id": "a/b"}}, "conversation.id", "must match"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "not supported"),
        ({"input": "x\u0000"}, None, ""),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_its_place(
    make_mill: MakeMill, body: dict[str, Any], param: str | None, words: str
) -> None:
    mill = await make_mill(SCRIPT)
    at, said = await refused(mill, **body)
    assert words in said
    if param is not None:
        assert at == param
    assert await mill.count("requests") == 0


async def test_a_word_that_is_not_known_is_a_warning_or_refused_if_wanted(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(SCRIPT)
    body = {"model": "mill", "input": "Why?", "temprature": 1}
    lenient = await mill.http.post("/v1/responses", json=body)
    assert lenient.status_code == 200
    assert "temprature" in lenient.headers["x-millrace-warning"]
    strict = await mill.http.post("/v1/responses", json=body, headers={"x-millrace-strict": "1"})
    assert (strict.status_code, strict.json()["error"]["code"]) == (400, "unknown_parameter")


async def test_an_unknown_model_is_a_404(make_mill: MakeMill) -> None:
    mill = await make_mill(SCRIPT)
    answer = await ask(mill, model="water")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
