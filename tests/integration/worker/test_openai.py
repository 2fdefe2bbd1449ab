"""What is particular to OpenAI-compatible engines: parameters pass, counts are asked for."""

import pytest

from millrace.chaos.engine import Reply
from queue_schemas.messages import ErrorKind
from tests.doubles.subtasks import a_subtask
from tests.integration.worker.conftest import Served
from tests.integration.worker.test_engines import error_of, everything, provider_of
from worker.providers.protocol import ProviderError

PARAMETERS = {
    "temperature": 0.3,
    "logit_bias": {"5": 1},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x-strange": {}}}}],
    "tool_choice": "required",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
    "logprobs": True,
    "top_logprobs": 2,
    "max_completion_tokens": 5,
    "guided_regex": "[a-z]+",
    "seed": 9,
}


async def test_every_parameter_reaches_the_engine_as_it_came(openai: Served) -> None:
    await everything(openai.model(), a_subtask(parameters=PARAMETERS))

    body = openai.engine.chats[0].body
    assert {name: body[name] for name in PARAMETERS} == PARAMETERS
    assert "max_tokens" not in body, "the client set the limit by its other name"


async def test_the_message_parts_reach_the_engine_as_they_came(openai: Served) -> None:
    url = {"url": "data:image/png;base64,AAAA", "detail": "low"}
    content = [{"type": "image_url", "image_url": url}]
    messages = ({"role": "user", "content": content, "name": "me", "x-vendor": 1},)

    await everything(openai.model(), a_subtask(messages=messages))

    assert openai.engine.chats[0].body["messages"] == list(messages)


async def test_counts_are_asked_for_whatever_the_client_said(openai: Served) -> None:
    asked = {"stream": False, "stream_options": None}

    await everything(openai.model(), a_subtask(parameters=asked))

    body = openai.engine.chats[0].body
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


async def test_a_limit_and_a_seed_are_always_sent(openai: Served) -> None:
    await everything(openai.model(max_output_tokens=77), a_subtask(seed=4))

    body = openai.engine.chats[0].body
    assert (body["max_tokens"], body["seed"]) == (77, 4)


async def test_engine_options_are_sent_and_clients_come_first(openai: Served) -> None:
    model = openai.model(options={"min_p": 0.1, "temperature": 0.1})

    await everything(model, a_subtask(parameters={"temperature": 0.9}))

    body = openai.engine.chats[0].body
    assert (body["min_p"], body["temperature"]) == (0.1, 0.9)
    assert "prefill" not in body
    assert "continue_final_message" not in body


async def test_continuing_says_so_to_engines_that_need_it(openai: Served) -> None:
    await everything(openai.model(), a_subtask(shown="The mill turns because"))

    body = openai.engine.chats[0].body
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


async def test_what_a_continuing_engine_needs_can_be_configured(openai: Served) -> None:
    model = openai.model(options={"prefill": {"prefix": True}})

    await everything(model, a_subtask(shown="The mill turns because"))

    body = openai.engine.chats[0].body
    assert body["prefix"] is True
    assert "continue_final_message" not in body


async def test_tool_calls_are_complete(openai: Served) -> None:
    call = {"id": "c1", "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Ulm", "days": 3}'}}  # fmt: skip
    openai.engine.reply = Reply(words=(), tool_calls=(call,), finish_reason="tool_calls")

    _, finish = await everything(openai.model(), a_subtask())

    assert finish.tool_calls == (call,)


async def test_an_engine_without_counts_leaves_them_open(openai: Served) -> None:
    openai.engine.reply = Reply(prompt_tokens=None)

    _, finish = await everything(openai.model(), a_subtask())

    assert (finish.prompt_tokens, finish.completion_tokens) == (None, None)


async def test_an_engine_that_refuses_to_count_is_named_and_not_asked_again(
    openai: Served,
) -> None:
    openai.engine.reply = Reply(status=400, error="unknown field: stream_options")

    error = await error_of(openai.model())

    assert (error.kind, error.code) == (ErrorKind.PERMANENT, "stream_options_unsupported")
    assert "include_usage" in error.message
    assert len(openai.engine.chats) == 1


async def test_retry_after_is_reported(openai: Served) -> None:
    openai.engine.reply = Reply(status=429, error="later", headers=(("Retry-After", "12"),))

    error = await error_of(openai.model())

    assert (error.code, error.retry_after_seconds) == ("engine_busy", 12.0)


async def test_the_check_of_a_missing_model_names_those_there_are(openai: Served) -> None:
    openai.engine.models = ("alpha", "beta")
    async with provider_of(openai.model()) as provider:
        with pytest.raises(ProviderError, match=r"'mill'.*engine_model.*alpha, beta"):
            await provider.check()


async def test_the_check_of_a_missing_key_names_its_variable(openai: Served) -> None:
    async with provider_of(openai.model(api_key_env="MILL_KEY_THAT_IS_NOT_SET")) as provider:
        with pytest.raises(ProviderError, match="MILL_KEY_THAT_IS_NOT_SET") as caught:
            await provider.check()

    assert caught.value.code == "engine_unauthorized"


async def test_an_engine_without_a_model_list_is_accepted(openai: Served) -> None:
    model = openai.model(endpoint=openai.url.removesuffix("/v1") + "/other")
    async with provider_of(model) as provider:
        await provider.check()
