"""What is particular to Ollama: its native API, its counts and its ways to say no."""

import json
from typing import Any

import pytest

from millrace.chaos.engine import Reply
from queue_schemas.messages import ErrorKind
from tests.doubles.subtasks import a_subtask
from tests.integration.worker.conftest import Served
from tests.integration.worker.test_engines import error_of, everything, provider_of
from worker.providers.protocol import ProviderError

NESTED = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "additionalProperties": False, "properties": {
        "place": {"type": "object", "properties": {"city": {"type": "string"}}}}}}}  # fmt: skip


async def test_the_native_api_is_used_with_explicit_bounds(ollama: Served) -> None:
    model = ollama.model(context_length=4096, max_output_tokens=99, keep_alive="5m")

    await everything(model, a_subtask(seed=3, parameters={"temperature": 0.5, "tools": [NESTED]}))

    call = ollama.engine.chats[0]
    assert call.path == "/api/chat"
    assert call.body["options"] == {
        "num_ctx": 4096, "num_predict": 99, "seed": 3, "temperature": 0.5,
    }  # fmt: skip
    assert (call.body["truncate"], call.body["shift"]) == (False, False)
    assert call.body["keep_alive"] == "5m"
    assert call.body["tools"] == [NESTED], "the library alone would lose the nested properties"


async def test_loading_time_is_reported(ollama: Served) -> None:
    _, finish = await everything(ollama.model(), a_subtask())

    assert finish.load_seconds == 0.25


async def test_tool_calls_come_in_openais_form(ollama: Served) -> None:
    arguments = {"city": "Ülm"}
    ollama.engine.reply = Reply(
        words=(), tool_calls=({"function": {"name": "weather", "arguments": arguments}},) * 2
    )

    _, finish = await everything(ollama.model(), a_subtask())

    first, second = finish.tool_calls
    assert finish.finish_reason == "tool_calls"
    assert first["type"] == "function"
    function: Any = first["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", arguments)
    assert first["id"] != second["id"]


async def test_a_redelivered_subtask_gets_the_same_tool_call_ids(ollama: Served) -> None:
    ollama.engine.reply = Reply(tool_calls=({"function": {"name": "f", "arguments": {}}},))
    subtask = a_subtask()

    ids = [(await everything(ollama.model(), subtask))[1].tool_calls[0]["id"] for _ in range(2)]

    assert ids[0] == ids[1]


@pytest.mark.parametrize("reason", ["load", "unload", "", None])
async def test_done_with_a_strange_reason_is_not_success(
    ollama: Served, reason: str | None
) -> None:
    ollama.engine.reply = Reply(finish_reason=reason)

    assert (await error_of(ollama.model())).code == "upstream_truncated"


async def test_out_of_memory_within_the_stream_is_poison(ollama: Served) -> None:
    ollama.engine.reply = Reply(error_after=1, error="cudaMalloc failed: out of memory")

    error = await error_of(ollama.model())

    assert (error.kind, error.code) == (ErrorKind.POISON, "engine_out_of_memory")


async def test_a_line_that_is_not_json_is_malformed(ollama: Served) -> None:
    ollama.engine.frame = lambda *_, **__: b"<html>bad gateway</html>\n"  # type: ignore[method-assign]

    assert (await error_of(ollama.model())).code == "upstream_malformed"


async def test_the_check_loads_the_model_with_the_context_of_real_calls(ollama: Served) -> None:
    async with provider_of(ollama.model(context_length=4096)) as provider:
        await provider.check()

    load = ollama.engine.calls[-1]
    assert (load.path, load.body["messages"]) == ("/api/chat", [])
    assert load.body["options"]["num_ctx"] == 4096


async def test_the_check_of_a_missing_model_says_how_to_get_it(ollama: Served) -> None:
    async with provider_of(ollama.model(engine_model="codellama:34b")) as provider:
        with pytest.raises(ProviderError, match="`ollama pull codellama:34b`") as caught:
            await provider.check()

    assert caught.value.code == "model_not_found"


async def test_the_key_of_a_guarded_ollama_is_sent(
    ollama: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILL_KEY", "secret")

    await everything(ollama.model(api_key_env="MILL_KEY"), a_subtask())

    assert ollama.engine.chats[0].headers["authorization"] == "Bearer secret"
