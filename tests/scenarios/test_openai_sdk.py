"""OpenAI's own SDK against a running installation, with an OpenAI-compatible engine behind it."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import openai
import pytest

from millrace.chaos.engine import Reply, serve
from millrace.chaos.openai_engine import OpenAIEngine
from millrace.chaos.stack import Stack
from tests.doubles.ollama_engine import OllamaEngine
from tests.scenarios.conftest import MakeStack

TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Ulm"}'},
}
QUESTION: Any = [{"role": "user", "content": "Why does the wheel turn?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
]


@pytest.fixture
async def mill(make_stack: MakeStack) -> AsyncGenerator[tuple[Stack, OpenAIEngine, OllamaEngine]]:
    """An installation with one engine of each kind."""
    engine, ollama = OpenAIEngine(models=("mill",)), OllamaEngine(models=("grind",))
    with serve(engine) as url, serve(ollama) as ollama_url:
        stack = make_stack(
            {"name": "mill", "provider": "openai", "endpoint": f"{url}/v1", "slots": 4},
            {"name": "grind", "provider": "ollama", "endpoint": ollama_url, "context_length": 4096},
        )
        await stack.start(mill=1, grind=1)
        yield stack, engine, ollama


async def test_the_model_list_has_models_and_strategies(
    mill: tuple[Stack, OpenAIEngine, OllamaEngine],
) -> None:
    async with mill[0].client() as client:
        names = [model.id async for model in client.models.list()]
    strategies = ("auto", "split", "rag", "ensemble", "crew", "router")
    assert names == ["mill", "grind", *(f"millrace/{name}" for name in strategies)]


STEPS = {
    "ensemble": ["candidate-1", "candidate-2", "judge-1", "judge-2"],
    "crew": ["research", "draft", "review"],
    "router": ["classify", "answer", "check"],
}


async def test_every_strategy_is_a_model(
    mill: tuple[Stack, OpenAIEngine, OllamaEngine],
) -> None:
    """These engines judge nothing that can be read; the answer is shown all the same."""
    stack, _, _ = mill
    async with stack.client() as client:
        for strategy, steps in STEPS.items():
            model = f"millrace/{strategy}"
            answer = await client.responses.create(model=model, input="Why?")
            stream = await client.chat.completions.create(
                model=model, messages=QUESTION, stream=True
            )
            choices = [choice async for chunk in stream for choice in chunk.choices]
            assert answer.output_text == "The mill turns slowly."
            assert "".join(c.delta.content or "" for c in choices) == answer.output_text
            record = await stack.ended(answer.id.removeprefix("resp_"))
            assert [subtask["step"] for subtask in record["subtasks"]] == steps
            assert all(judgement["problem"] for judgement in record["plan"]["judgements"])


@pytest.mark.parametrize("model", ["mill", "grind"], ids=["openai engine", "ollama"])
async def test_a_chat_whole_and_streamed(
    mill: tuple[Stack, OpenAIEngine, OllamaEngine], model: str
) -> None:
    stack, engine, ollama = mill
    async with stack.client() as client:
        whole = await client.chat.completions.create(model=model, messages=QUESTION)
        assert whole.choices[0].message.content == "The mill turns slowly."
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (11, 5)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=model,
                messages=QUESTION,
                stream=True,
                stream_options={"include_usage": True},
                seed=7,
                temperature=0.5,
            )
        ]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == "The mill turns slowly."
    assert [c.finish_reason for c in choices if c.finish_reason] == ["stop"]
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [16]
    sent = (engine if model == "mill" else ollama).chats[-1].body
    asked = sent.get("options", sent)
    assert (asked["seed"], asked["temperature"]) == (7, 0.5)
    assert "options" not in sent or asked["num_ctx"] == 4096


async def test_tools_pass_through_whole_and_streamed(
    mill: tuple[Stack, OpenAIEngine, OllamaEngine],
) -> None:
    stack, engine, _ = mill
    engine.reply = Reply(words=(), tool_calls=(TOOL_CALL,), finish_reason="tool_calls")
    async with stack.client() as client:
        whole = await client.chat.completions.create(model="mill", messages=QUESTION, tools=TOOLS)
        streamed = await client.chat.completions.create(
            model="mill", messages=QUESTION, tools=TOOLS, stream=True
        )
        deltas = [c.delta async for chunk in streamed for c in chunk.choices if c.delta.tool_calls]
    assert engine.chats[-1].body["tools"] == TOOLS
    assert whole.choices[0].finish_reason == "tool_calls"
    assert whole.choices[0].message.tool_calls is not None
    assert json.loads(whole.choices[0].message.tool_calls[0].to_json()) == TOOL_CALL
    assert len(deltas) == 1
    assert deltas[0].tool_calls is not None
    assert json.loads(deltas[0].tool_calls[0].to_json()) == {"index": 0, **TOOL_CALL}


async def test_errors_are_those_the_sdk_knows(
    mill: tuple[Stack, OpenAIEngine, OllamaEngine],
) -> None:
    stack, engine, _ = mill
    async with stack.client() as client:
        chat = client.chat.completions
        with pytest.raises(openai.NotFoundError, match="available: mill, grind, millrace/auto"):
            await chat.create(model="water", messages=QUESTION)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            await chat.create(model="mill", messages=QUESTION, temperature=9)
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="mr-wrong").models.list()
        engine.reply = Reply(status=400, error="no such parameter")
        with pytest.raises(openai.APIStatusError, match="no such parameter"):
            await chat.create(model="mill", messages=QUESTION)
        with pytest.raises(openai.APIError, match="no such parameter"):
            async for _ in await chat.create(model="mill", messages=QUESTION, stream=True):
                pass


async def test_an_engine_that_fails_first_is_tried_again_and_the_client_notices_nothing(
    mill: tuple[Stack, OpenAIEngine, OllamaEngine],
) -> None:
    stack, engine, _ = mill
    engine.replies.append(Reply(status=503, error="busy"))
    async with stack.client() as client:
        answer = await client.chat.completions.with_raw_response.create(
            model="mill", messages=[{"role": "user", "content": "Hello?"}]
        )
    assert answer.parse().choices[0].message.content == "The mill turns slowly."
    record = await stack.record(answer.headers["x-millrace-request-id"])
    [subtask] = record["subtasks"]
    assert subtask["attempt"] == 2
    assert [a["outcome"] for a in subtask["attempts"]][-1] == "completed"


async def test_a_client_that_leaves_stops_the_engine(
    mill: tuple[Stack, OpenAIEngine, OllamaEngine],
) -> None:
    stack, engine, _ = mill
    engine.reply = Reply(words=tuple(f" {n}" for n in range(1000)), word_seconds=0.02)
    async with stack.client() as client:
        stream = await client.chat.completions.create(
            model="mill", messages=[{"role": "user", "content": "Count!"}], stream=True
        )
        request = stream.response.headers["x-millrace-request-id"]
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
    await engine.wait_for(lambda: engine.chats[-1].client_left_at is not None)
    record = await stack.ended(request)
    assert record["state"] == "cancelled"
    assert record["subtasks"][0]["state"] == "cancelled"
