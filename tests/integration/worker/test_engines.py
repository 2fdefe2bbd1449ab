"""Both providers against engines over real HTTP: what every engine has to get right."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from millrace.chaos.engine import Engine, Reply
from queue_schemas.messages import Channel, ErrorKind, SubtaskRequest
from queue_schemas.registry import Model
from tests.doubles.subtasks import a_model, a_subtask
from tests.integration.worker.conftest import Served
from worker.providers.protocol import Delta, Finish, Provider, ProviderError
from worker.providers.registry import make_provider


@asynccontextmanager
async def provider_of(model: Model) -> AsyncIterator[Provider]:
    provider = make_provider(model)
    try:
        yield provider
    finally:
        await provider.aclose()


async def everything(model: Model, subtask: SubtaskRequest) -> tuple[list[Delta], Finish]:
    async with provider_of(model) as provider:
        items = [item async for item in provider.complete(subtask)]
    *deltas, finish = items
    assert isinstance(finish, Finish)
    return [delta for delta in deltas if isinstance(delta, Delta)], finish


def text_of(deltas: list[Delta], channel: Channel = Channel.CONTENT) -> str:
    return "".join(delta.text for delta in deltas if delta.channel is channel)


async def error_of(model: Model, subtask: SubtaskRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await everything(model, subtask or a_subtask())
    return caught.value


async def test_text_arrives_word_by_word_with_the_engines_counts(served: Served) -> None:
    deltas, finish = await everything(served.model(), a_subtask())

    assert [delta.text for delta in deltas] == ["The", " mill", " turns", " slowly", "."]
    assert (finish.finish_reason, finish.prompt_tokens, finish.completion_tokens) == ("stop", 11, 5)


async def test_reasoning_is_a_channel_of_its_own(served: Served) -> None:
    served.engine.reply = Reply(reasoning=("Water", " falls."), words=("Yes",))

    deltas, _ = await everything(served.model(), a_subtask())

    assert text_of(deltas, Channel.REASONING) == "Water falls."
    assert text_of(deltas) == "Yes"


async def test_the_engines_own_name_of_the_model_is_asked_for(served: Served) -> None:
    served.engine.models = ("mill:7b",)

    await everything(served.model(engine_model="mill:7b"), a_subtask())

    assert served.engine.chats[0].body["model"] == "mill:7b"


async def test_reaching_the_limit_is_length(served: Served) -> None:
    served.engine.reply = Reply(finish_reason="length")

    _, finish = await everything(served.model(), a_subtask())

    assert finish.finish_reason == "length"


@pytest.mark.parametrize(
    ("status", "said", "kind", "code"),
    [
        (503, "server busy, please try again", ErrorKind.TRANSIENT, "engine_busy"),
        (500, "something odd", ErrorKind.TRANSIENT, "engine_error"),
        (502, "bad gateway", ErrorKind.TRANSIENT, "engine_unreachable"),
        (500, "CUDA error: out of memory", ErrorKind.POISON, "engine_out_of_memory"),
        (500, "llama runner process has terminated", ErrorKind.POISON, "engine_crashed"),
        (500, "timed out waiting for llama runner to start", ErrorKind.TRANSIENT,
         "model_load_failed"),
        (400, "prompt exceeds the context length", ErrorKind.PERMANENT, "context_length_exceeded"),
        (400, "mill does not support tools", ErrorKind.PERMANENT, "unsupported_by_model"),
        (400, "temperature must be a number", ErrorKind.PERMANENT, "bad_request"),
        (401, "unauthorized", ErrorKind.PERMANENT, "engine_unauthorized"),
    ],
)  # fmt: skip
async def test_a_refusal_says_whether_another_try_may_help(
    served: Served, status: int, said: str, kind: ErrorKind, code: str
) -> None:
    served.engine.reply = Reply(status=status, error=said)

    error = await error_of(served.model())

    assert (error.kind, error.code) == (kind, code)
    assert said in error.message
    assert len(served.engine.chats) == 1, "the master retries, and nobody else"


async def test_an_unknown_model_is_permanent(served: Served) -> None:
    served.engine.models = ("another",)

    error = await error_of(served.model())

    assert (error.kind, error.code) == (ErrorKind.PERMANENT, "model_not_found")


@pytest.mark.parametrize("after", [0, 2])
async def test_an_error_within_the_stream_is_a_failure(served: Served, after: int) -> None:
    served.engine.reply = Reply(error_after=after, error="the runner lost its way")

    error = await error_of(served.model())

    assert (error.kind, error.code) == (ErrorKind.TRANSIENT, "engine_error")
    assert error.message == "the runner lost its way"


@pytest.mark.parametrize(
    "reply", [Reply(cut_after=2), Reply(end_after=2), Reply(finish_reason=None)], ids=str
)
async def test_an_end_without_a_finish_is_never_success(served: Served, reply: Reply) -> None:
    served.engine.reply = reply

    error = await error_of(served.model())

    assert (error.kind, error.code) == (ErrorKind.TRANSIENT, "upstream_truncated")


async def test_nobody_listening_is_transient(served: Served) -> None:
    model = a_model(served.provider, endpoint="http://127.0.0.1:9/v1")

    error = await error_of(model)

    assert (error.kind, error.code) == (ErrorKind.TRANSIENT, "engine_unreachable")


async def test_closing_the_generator_closes_the_connection_within_100_ms(served: Served) -> None:
    served.engine.reply = Reply(words=("word ",) * 10_000, word_seconds=0.01)
    async with provider_of(served.model()) as provider:
        for _ in range(10):  # a machine may stand still for once
            if await seconds_to_close(provider, served.engine) < 0.1:
                return
    pytest.fail("it always takes longer")


async def seconds_to_close(provider: Provider, engine: Engine) -> float:
    """From when nobody wants more to the end of the connection."""
    async with aclosing(provider.complete(a_subtask())) as items:
        async for _ in items:
            break
        call = engine.chats[-1]
        left_at = time.monotonic()
    await engine.wait_for(lambda: call.client_left_at)
    assert call.client_left_at is not None
    return call.client_left_at - left_at


async def test_a_cancelled_task_closes_a_silent_engines_connection(served: Served) -> None:
    served.engine.reply = Reply(hang_after=0)
    task = asyncio.create_task(everything(served.model(), a_subtask()))
    await served.engine.wait_for(lambda: served.engine.chats)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    call = served.engine.chats[0]
    await served.engine.wait_for(lambda: call.client_left_at)


async def test_one_connection_serves_many_chats(served: Served) -> None:
    async with provider_of(served.model()) as provider:
        for _ in range(5):
            async for _item in provider.complete(a_subtask()):
                pass
    ports = {call.headers["x-client-port"] for call in served.engine.chats}

    assert len(served.engine.chats) == 5
    assert len(ports) == 1


async def test_shown_text_is_continued_and_its_echo_dropped(served: Served) -> None:
    shown = "The mill turns because water"
    served.engine.reply = Reply(words=("The mill turns", " because water", " falls", " on it."))

    deltas, _ = await everything(served.model(), a_subtask(shown=shown))

    assert text_of(deltas) == " falls on it."
    last = served.engine.chats[0].body["messages"][-1]
    assert last == {"role": "assistant", "content": shown}


async def test_shown_text_is_continued_by_an_engine_that_does_not_echo(served: Served) -> None:
    served.engine.reply = Reply(words=(" falls", " on it."))

    deltas, _ = await everything(served.model(), a_subtask(shown="The mill turns because water"))

    assert text_of(deltas) == " falls on it."


async def test_a_healthy_engine_passes_the_check(served: Served) -> None:
    async with provider_of(served.model()) as provider:
        await provider.check()


async def test_the_check_of_a_dead_engine_says_where_it_looked(served: Served) -> None:
    model = a_model(served.provider, endpoint="http://127.0.0.1:9/v1")
    async with provider_of(model) as provider:
        with pytest.raises(ProviderError, match=r"127\.0\.0\.1:9.* start it") as caught:
            await provider.check()

    assert caught.value.kind is ErrorKind.TRANSIENT
