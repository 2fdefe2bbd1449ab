"""OpenAI requests in Ollama's words."""

import base64
from typing import Any

import pytest

from queue_schemas.messages import ErrorKind
from tests.doubles.subtasks import a_model, a_subtask
from worker.providers.ollama_payload import chat_payload
from worker.providers.protocol import ProviderError

PIXEL = base64.b64encode(b"\x89PNG not really").decode()
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"place": {"type": "object", "properties": {"city": {"type": "string"}}}},
        },
    },
}
OTHER = {"type": "function", "function": {"name": "time", "parameters": {}}}  # fmt: skip


def payload(model: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return chat_payload(a_model("ollama", **(model or {})), a_subtask(**fields))


def asked(**parameters: Any) -> dict[str, Any]:
    return payload(parameters=parameters)


def test_the_context_length_is_always_explicit_and_nothing_is_truncated_in_silence() -> None:
    found = payload({"context_length": 4096})

    assert found["options"]["num_ctx"] == 4096
    assert (found["truncate"], found["shift"], found["stream"]) == (False, False, True)


def test_there_is_always_a_limit_and_a_client_can_only_lower_it() -> None:
    model = {"max_output_tokens": 100}

    def limit(**parameters: Any) -> object:
        return payload(model, parameters=parameters)["options"]["num_predict"]

    assert limit() == 100
    assert limit(max_tokens=7) == 7
    assert limit(max_completion_tokens=8, max_tokens=9) == 8
    assert limit(max_tokens=1_000_000) == 100
    assert limit(max_tokens=None) == 100


def test_sampling_parameters_keep_their_meaning() -> None:
    options = asked(temperature=0.0, top_p=0.5, top_k=3, frequency_penalty=1, stop="END")["options"]

    assert options["temperature"] == 0.0
    assert (options["top_p"], options["top_k"], options["frequency_penalty"]) == (0.5, 3, 1)
    assert options["stop"] == ["END"]
    assert asked(stop=["a", "b"])["options"]["stop"] == ["a", "b"]


def test_parameters_that_ollama_has_no_word_for_are_left_out() -> None:
    found = asked(user="x", logit_bias={}, stream_options={}, parallel_tool_calls=True)

    assert found.keys() == payload().keys()
    assert found["options"].keys() == payload()["options"].keys()


def test_the_seed_is_the_subtasks_unless_the_client_chose_one() -> None:
    assert payload(seed=5)["options"]["seed"] == 5
    assert payload(seed=5, parameters={"seed": 9})["options"]["seed"] == 9


def test_engine_options_of_the_registry_are_used_and_clients_come_first() -> None:
    model = {"options": {"num_gpu": 10, "temperature": 0.1, "think": False}}
    found = payload(model, parameters={"temperature": 0.9})

    assert (found["options"]["num_gpu"], found["options"]["temperature"]) == (10, 0.9)
    assert found["think"] is False
    assert "think" not in found["options"]


def test_a_bare_keep_alive_is_a_number_of_seconds() -> None:
    assert payload({"keep_alive": "30m"})["keep_alive"] == "30m"
    assert payload({"keep_alive": "-1"})["keep_alive"] == -1


def test_response_formats() -> None:
    schema = {"type": "object"}

    assert asked(response_format={"type": "json_object"})["format"] == "json"
    assert (
        asked(response_format={"type": "json_schema", "json_schema": {"schema": schema}})["format"]
        == schema
    )
    assert "format" not in asked(response_format={"type": "text"})


def test_tools_go_through_whole() -> None:
    assert asked(tools=[TOOL])["tools"] == [TOOL]


def test_tool_choice_is_honoured_by_what_is_offered() -> None:
    named = {"type": "function", "function": {"name": "time"}}

    assert asked(tools=[TOOL, OTHER], tool_choice="auto")["tools"] == [TOOL, OTHER]
    assert asked(tools=[TOOL, OTHER], tool_choice=named)["tools"] == [OTHER]
    assert "tools" not in asked(tools=[TOOL], tool_choice="none")


def test_reasoning_effort_reaches_only_models_that_reason() -> None:
    reasoning = {"capabilities": ["chat", "reasoning"]}

    assert payload(reasoning, parameters={"reasoning_effort": "high"})["think"] == "high"
    assert payload(reasoning, parameters={"reasoning_effort": "none"})["think"] is False
    assert "think" not in asked(reasoning_effort="high")
    assert asked(think=True)["think"] is True


def test_images_become_plain_base64() -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]

    (message,) = payload(messages=({"role": "user", "content": content},))["messages"]

    assert message == {"role": "user", "content": "What is this?", "images": [PIXEL]}


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/", "file:///etc/passwd", "/etc/passwd", "data:image/png;base64,?!",
     "data:image/png,plain", None],
)  # fmt: skip
def test_an_image_that_is_not_in_the_request_is_refused(url: str | None) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]

    with pytest.raises(ProviderError) as caught:
        payload(messages=({"role": "user", "content": content},))

    assert (caught.value.kind, caught.value.code) == (ErrorKind.PERMANENT, "bad_request")


def test_a_conversation_with_tool_calls_is_translated() -> None:
    call = {"id": "c1", "type": "function",
            "function": {"name": "weather", "arguments": '{"place": "Ulm"}'}}  # fmt: skip
    found = payload(
        messages=(
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "yes"},
        )
    )

    assert found["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "weather", "arguments": {"place": "Ulm"}}}]},
        {"role": "tool", "content": "yes", "tool_name": "weather"},
    ]  # fmt: skip


def test_broken_arguments_of_an_old_tool_call_are_the_clients_fault() -> None:
    call = {"id": "c1", "function": {"name": "weather", "arguments": "{"}}

    with pytest.raises(ProviderError, match="not JSON"):
        payload(messages=({"role": "assistant", "tool_calls": [call]},))
