"""The shapes are checked with the OpenAI SDK's own types, which refuse missing fields."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from master.api import openai_shapes as shapes

CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "f", "arguments": "{}"},
}
USAGE = shapes.usage(3, 4)


def chunk(frame: bytes) -> dict[str, Any]:
    assert frame.startswith(b"data: {")
    assert frame.endswith(b"}\n\n")
    assert frame.count(b"\n") == 2
    body: dict[str, Any] = json.loads(frame[6:])
    ChatCompletionChunk.model_validate(body)
    return body


def delta(frame: bytes) -> dict[str, Any]:
    found: dict[str, Any] = chunk(frame)["choices"][0]["delta"]
    return found


@pytest.fixture(params=[False, True], ids=["plain", "include_usage"])
def chunks(request: pytest.FixtureRequest) -> shapes.Chunks:
    return shapes.Chunks('chatcmpl-"1"', "millrace/größe", 1700000000, include_usage=request.param)


def test_every_chunk_of_a_stream_carries_the_same_identity(chunks: shapes.Chunks) -> None:
    frames = [
        chunks.role(),
        chunks.reasoning("hm"),
        chunks.content("a"),
        chunks.tool_calls([CALL]),
        chunks.finish("stop"),
        chunks.usage(USAGE),
    ]
    for frame in frames:
        body = chunk(frame)
        assert body["id"] == 'chatcmpl-"1"'
        assert body["object"] == "chat.completion.chunk"
        assert (body["model"], body["created"]) == ("millrace/größe", 1700000000)


def test_the_first_chunk_names_the_role(chunks: shapes.Chunks) -> None:
    assert delta(chunks.role()) == {"role": "assistant", "content": ""}


@given(st.text(st.characters()))
def test_any_text_arrives_as_it_was(text: str) -> None:
    chunks = shapes.Chunks("c", "m", 1)
    assert delta(chunks.content(text)) == {"content": text}
    assert delta(chunks.reasoning(text)) == {"reasoning_content": text}


def test_the_fast_path_writes_what_json_dumps_writes() -> None:
    expected = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "delta": {"content": "ü\n"}, "logprobs": None, "finish_reason": None}
        ],
    }
    body = json.dumps(expected, separators=(",", ":")).encode()
    assert shapes.Chunks("c", "m", 1).content("ü\n") == b"data: " + body + b"\n\n"


def test_tool_calls_are_numbered(chunks: shapes.Chunks) -> None:
    calls = delta(chunks.tool_calls([CALL, CALL]))["tool_calls"]
    assert [call["index"] for call in calls] == [0, 1]
    assert calls[1] == {"index": 1, **CALL}


def test_the_finish_chunk_says_why(chunks: shapes.Chunks) -> None:
    choice = chunk(chunks.finish("length"))["choices"][0]
    assert choice == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}


def test_the_usage_chunk_has_no_choices_and_comes_with_null_usage_before() -> None:
    chunks = shapes.Chunks("c", "m", 1, include_usage=True)
    for frame in (chunks.role(), chunks.content("a"), chunks.finish("stop")):
        assert chunk(frame)["usage"] is None
    last = chunk(chunks.usage(USAGE))
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert "millrace" not in last


def test_without_include_usage_no_chunk_speaks_of_usage() -> None:
    chunks = shapes.Chunks("c", "m", 1)
    for frame in (chunks.role(), chunks.content("a"), chunks.finish("stop")):
        assert "usage" not in chunk(frame)


def test_own_fields_are_there_for_clients_that_tolerate_them() -> None:
    last = chunk(shapes.Chunks("c", "m", 1).usage(shapes.usage(1, 2, subtasks=3), {"request": "r"}))
    assert last["usage"]["subtasks"] == 3
    assert last["millrace"] == {"request": "r"}


def test_a_whole_answer_has_only_standard_fields() -> None:
    body = shapes.completion(
        id="c", model="m", created=1, content="hi", finish_reason="stop", usage=USAGE
    )
    parsed = ChatCompletion.model_validate_json(json.dumps(body))
    assert parsed.choices[0].message.content == "hi"
    assert parsed.model_extra == {}
    assert parsed.choices[0].message.model_extra == {}


def test_a_whole_answer_of_tool_calls_has_null_content() -> None:
    body = shapes.completion(
        id="c", model="m", created=1, content="", finish_reason="tool_calls", usage=USAGE,
        tool_calls=[CALL], reasoning="because", sources=[{"number": 1}],
    )  # fmt: skip
    message = ChatCompletion.model_validate_json(json.dumps(body)).choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].model_dump() == CALL
    assert body["sources"] == [{"number": 1}]
    assert message.model_extra == {"reasoning_content": "because"}


def test_the_model_list_is_openais() -> None:
    body = shapes.model_list([shapes.model_entry("a", 1), shapes.model_entry("b", 1, label="B")])
    assert body["object"] == "list"
    assert isinstance(body["data"], list)
    models = [Model.model_validate(entry) for entry in body["data"]]
    assert [model.id for model in models] == ["a", "b"]
    assert models[1].model_extra == {"name": "B"}
