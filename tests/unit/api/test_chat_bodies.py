"""Rows 12-17, 23, 24 and 26 of the bad inputs: what a chat completion may ask for."""

import base64
import math
import struct
from typing import Any

import pytest
from pydantic import ValidationError

from master.api.bodies import ChatBody, parse_chat
from master.api.chat_schema import ChatRequest
from master.api.errors import ApiError

HELLO: dict[str, Any] = {"role": "user", "content": "Hello"}
_PNG_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", 64, 48) + b"\x08\x02\0\0\0"
PIXELS = "data:image/png;base64," + base64.b64encode(_PNG_HEADER).decode()
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def chat(*messages: dict[str, Any], **parameters: Any) -> ChatBody:
    return parse_chat({"model": "m", "messages": list(messages or [HELLO]), **parameters})


def refused(body: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_chat(body)
    return caught.value


def part(url: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stream", "yes", "must be true or false"),
        ("stream", 1, "must be true or false"),
        ("stream_options", [], "must be an object"),
        ("max_tokens", True, "must be an integer"),
        ("max_tokens", "5", "must be an integer"),
        ("max_tokens", 1.5, "must be an integer"),
        ("max_tokens", -1, "must be at least 1"),
        ("max_tokens", 0, "must be at least 1"),
        ("max_tokens", 1e30, "must be an integer"),
        ("max_tokens", 10**30, "must be at most 1000000"),
        ("max_completion_tokens", 0, "must be at least 1"),
        ("temperature", "0.5", "must be a number"),
        ("temperature", False, "must be a number"),
        ("temperature", -0.1, "must be at least 0"),
        ("temperature", 2.01, "must be at most 2"),
        ("temperature", math.nan, "must be a finite number"),
        ("temperature", math.inf, "must be a finite number"),
        ("top_p", 1.01, "must be at most 1"),
        ("top_k", 1.5, "must be an integer"),
        ("presence_penalty", 3, "must be at most 2"),
        ("frequency_penalty", -3, "must be at least -2"),
        ("n", 100, "must be 1"),
        ("n", 0, "must be 1"),
        ("seed", 2**63, "must be less than"),
        ("seed", 0.5, "must be an integer"),
        ("stop", 5, "must be a string"),
        ("stop", "", "must not be empty"),
        ("stop", ["x"] * 17, "must have at most 16 items"),
        ("logprobs", 3, "must be true or false"),
        ("top_logprobs", 21, "must be at most 20"),
        ("top_logprobs", 2, "needs `logprobs: true`"),
        ("logit_bias", [], "must be an object"),
        ("tools", {}, "must be an array"),
        ("tools", [TOOL] * 513, "must have at most 512 items"),
        ("tool_choice", "perhaps", "must be one of"),
        ("tool_choice", "required", "needs tools"),
        ("response_format", "json", "must be an object"),
        ("user", 7, "must be a string"),
        ("user", "x" * 513, "at most 512 characters"),
        ("metadata", {f"k{i}": "" for i in range(17)}, "at most 16 keys"),
        ("modalities", "text", "must be an array"),
        ("reasoning_effort", 3, "must be a string"),
    ],
)
def test_a_parameter_out_of_its_range_is_refused_by_name(
    name: str, value: object, words: str
) -> None:
    error = refused({"model": "m", "messages": [HELLO], name: value})
    assert (error.status, error.param) == (400, name)
    assert error.code in {"invalid_value", "invalid_type"}
    assert error.message.startswith(name)
    assert words in error.message


@pytest.mark.parametrize(
    ("name", "value", "param", "words"),
    [
        ("stop", ["a", 1], "stop[1]", "must be a string"),
        ("logit_bias", {"5": 101}, "logit_bias.5", "-100 to 100"),
        ("logit_bias", {"5": math.nan}, "logit_bias.5", "-100 to 100"),
        ("logit_bias", {"5": True}, "logit_bias.5", "-100 to 100"),
        ("metadata", {"k": 1}, "metadata.k", "must be a string"),
        ("metadata", {"k": "x" * 513}, "metadata.k", "512 characters"),
        ("stream_options", {"include_usage": "y"}, "stream_options.include_usage", "true or false"),
        ("tools", [{"type": "retrieval"}], "tools[0].type", "must be one of: 'function'"),
        ("tools", [{"type": "function", "function": {}}], "tools[0].function.name", "is required"),
        ("tools", [{"type": "function", "function": {"name": "a b"}}], "tools[0].function.name",
         "must match"),
        ("tool_choice", {"type": "function", "function": {"name": "x"}},
         "tool_choice.function.name", "is not among the tools"),
        ("response_format", {"type": "xml"}, "response_format.type", "'json_schema'"),
        ("response_format", {"type": "json_schema"}, "response_format.json_schema", "is required"),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "n", "schema": 1}},
         "response_format.json_schema.schema", "must be an object"),
        ("modalities", ["audio"], "modalities[0]", "must be one of: 'text'"),
    ],
)  # fmt: skip
def test_a_bad_value_inside_a_parameter_is_refused_by_its_path(
    name: str, value: object, param: str, words: str
) -> None:
    error = refused({"model": "m", "messages": [HELLO], name: value})
    assert (error.status, error.param) == (400, param)
    assert words in error.message


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        ([], "messages", "must not be empty"),
        ("hello", "messages", "must be an array"),
        (None, "messages", "must be an array"),
        ([HELLO] * 2049, "messages", "at most 2048 items"),
        (["hello"], "messages[0]", "must be an object"),
        ([HELLO, {"role": "root", "content": "x"}], "messages[1].role",
         "must be one of: 'system', 'developer', 'user', 'assistant' or 'tool'"),
        ([{"content": "x"}], "messages[0].role", "is required"),
        ([{"role": "user"}], "messages[0].content", "is required"),
        ([{"role": "user", "content": None}], "messages[0].content", "is required"),
        ([{"role": "user", "content": 5}], "messages[0].content", "must be a string"),
        ([{"role": "user", "content": {}}], "messages[0].content", "must be a string"),
        ([{"role": "user", "content": []}], "messages[0].content", "must not be empty"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]", "must be an object"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text",
         "is required"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}],
         "messages[0].content[0].text", "must be a string"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}],
         "messages[0].content[0].type", "must be one of: 'text'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}],
         "messages[0].content[0].image_url", "is required"),
        ([{"role": "system", "content": part(PIXELS)["content"]}], "messages[0].content[0]",
         "only for user messages"),
        ([{"role": "assistant"}], "messages[0].content", "is required"),
        ([{"role": "assistant", "tool_calls": []}], "messages[0].content", "is required"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}],
         "messages[0].tool_calls[0].function", "is required"),
        ([{"role": "user", "content": "x", "tool_calls": [CALL]}], "messages[0].tool_calls",
         "only for assistant"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id", "is required"),
        ([{"role": "user", "content": "x", "name": 1}], "messages[0].name", "must be a string"),
    ],
)  # fmt: skip
def test_a_bad_message_is_refused_by_its_path(messages: object, param: str, words: str) -> None:
    error = refused({"model": "m", "messages": messages})
    assert (error.status, error.param) == (400, param)
    assert words in error.message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.org/cat.png", "remote images not allowed"),
        ("file:///etc/passwd", "remote images not allowed"),
        ("http://169.254.169.254/", "remote images not allowed"),
        ("data:image/png;base64,####", "is not valid base64"),
        (17, "must be a string"),
    ],
)
def test_a_bad_image_is_refused_by_its_path(url: object, words: str) -> None:
    error = refused({"model": "m", "messages": [HELLO, part(url)]})
    assert error.status == 400
    assert error.param == "messages[1].content[0].image_url.url"
    assert words in error.message


@pytest.mark.parametrize(
    ("model", "code"),
    [(None, "invalid_type"), ("", "invalid_value"), ("m" * 1025, "invalid_value")],
)
def test_the_model_is_a_non_empty_string(model: object, code: str) -> None:
    error = refused({"model": model, "messages": [HELLO]})
    assert (error.status, error.code, error.param) == (400, code, "model")


def test_a_missing_field_is_named() -> None:
    error = refused({"messages": [HELLO]})
    assert (error.code, error.param) == ("missing_required_parameter", "model")
    assert error.message == "model is required"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a model", "größe", "x;drop"])
def test_an_odd_model_name_is_for_the_registry_to_refuse(name: str) -> None:
    assert parse_chat({"model": name, "messages": [HELLO]}).model == name


def test_text_over_the_limit_is_too_large() -> None:
    for messages in (
        [{"role": "user", "content": "x" * 2_000_001}],
        [{"role": "user", "content": "ü" * 1_000_001}],
        [{"role": "user", "content": "x" * 1_000_000}] * 2 + [HELLO],
        [{"role": "user", "content": [{"type": "text", "text": "x" * 1_000_000}] * 3}],
    ):
        error = refused({"model": "m", "messages": messages})
        assert (error.status, error.code, error.param) == (413, "request_too_large", "messages")
        assert "2000000" in error.message
    assert chat({"role": "user", "content": "x" * 2_000_000}).model == "m"


def test_a_full_request_is_taken_apart() -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
        part(PIXELS),
        {"role": "assistant", "content": None, "tool_calls": [CALL], "own_field": 1},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "content": ""},
    ]
    body = chat(
        *messages, stream=True, stream_options={"include_usage": True}, temperature=1, top_p=0.5,
        n=1, max_tokens=10, stop=["a", "b"], seed=-3, tools=[TOOL], user="u-1",
        tool_choice={"type": "function", "function": {"name": "look_up"}},
        metadata={"request_id": "r"}, response_format={"type": "json_object"}, store=False,
        logprobs=True, top_logprobs=2, presence_penalty=None, logit_bias={"50256": -100},
    )  # fmt: skip
    assert body.messages == tuple(messages)
    assert (body.stream, body.include_usage, body.images) == (True, True, 1)
    assert (body.user, body.metadata) == ("u-1", {"request_id": "r"})
    assert body.warnings == ()
    assert body.parameters == {
        "temperature": 1, "top_p": 0.5, "n": 1, "max_tokens": 10, "stop": ["a", "b"], "seed": -3,
        "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look_up"}},
        "response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 2,
        "logit_bias": {"50256": -100},
    }  # fmt: skip


def test_null_means_absent() -> None:
    everything = ("stream", "stream_options", "user", "metadata", "temperature", "stop", "tools")
    body = chat(**dict.fromkeys(everything))
    assert (body.stream, body.include_usage, body.user) == (False, False, None)
    assert (body.metadata, body.parameters, body.warnings) == ({}, {}, ())


def test_an_unknown_parameter_is_left_out_and_reported() -> None:
    body = chat(temprature=0.5, any_field="fast")
    assert body.parameters == {}
    assert body.warnings == ("ignored unknown parameters: any_field, temprature",)


def test_an_unknown_parameter_is_refused_when_the_client_wants_strictness() -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat({"model": "m", "messages": [HELLO], "temprature": 1}, strict=True)
    error = caught.value
    assert (error.status, error.code, error.param) == (400, "unknown_parameter", "temprature")


def test_warnings_fit_into_a_header_whatever_the_names() -> None:
    names = {f"k{i}\r\nx: ü😀" * 40: 1 for i in range(500)}
    (warning,) = chat(**names).warnings
    assert warning.isascii()
    assert warning.isprintable()
    assert len(warning) < 2000


@pytest.mark.parametrize(
    "parameters",
    [
        {"messages": [1] * 2000},
        {"messages": [{"role": "user", "content": [1] * 4000}] * 2000},
        {"messages": [HELLO], "stop": [1] * 16},
        {"messages": [HELLO], "tools": [1] * 500},
    ],
)
def test_a_long_list_of_bad_items_does_not_make_a_long_list_of_errors(
    parameters: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({"model": "m", **parameters})
    assert caught.value.error_count() == 1
