"""What a model thought goes on where a stream was cut, as its answer does (P5)."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from openai import AsyncOpenAI

from master import streams
from master.api.response_events import HEAD
from millrace.chaos.stack import until
from queue_schemas.messages import Channel, TokenChunk
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, Streamed, a_script, installations
from tests.integration.master.responses_client import Events, create, replay, resume
from tests.integration.master.test_request_events import events, text_of

MakeMills = Callable[..., Awaitable[list[Mill]]]

THOUGHTS = " ".join(f"thought{n}" for n in range(20))
WORDS = " ".join(f"word{n}" for n in range(40))
"""Long enough that a busy machine joins or leaves before its end."""
PACED = a_script(reasoning=THOUGHTS, text=WORDS, tokens_per_second=50)


@pytest.fixture
async def make_mills(migrated_url: str) -> AsyncGenerator[MakeMills, None]:
    """Makes two masters that serve the models given; ended with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*models: dict[str, Any], **settings: Any) -> list[Mill]:
            made = installations(migrated_url, *models, masters=2, **settings)
            return await stack.enter_async_context(made)

        yield make


async def streams_something(mill: Mill) -> bool:
    return len(mill.running.streams) > 0


def thoughts_of(got: Events) -> str:
    deltas = (e for e in got.events if e["type"] == "response.reasoning_text.delta")
    return "".join(event["delta"] for event in deltas)


def whole(got: Events) -> None:
    """The stream has all thoughts and all text once, in items that agree with its end."""
    assert got.rising()
    assert (thoughts_of(got), got.text) == (THOUGHTS, WORDS)
    assert got.types == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    done = [e["item"] for e in got.events if e["type"] == "response.output_item.done"]
    assert done == got.last["output"]
    assert [item["type"] for item in done] == ["reasoning", "message"]
    assert done[0]["content"] == [{"type": "reasoning_text", "text": THOUGHTS}]


@pytest.mark.parametrize("after", ["thought5 ", "thought19", "word0", "word9 "])
async def test_a_response_that_is_cut_while_it_thinks_or_later_goes_on_elsewhere(
    make_mills: MakeMills, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.setattr(streams, "_WATCH_SECONDS", 3600)  # which would heal much
    gates = Gates(35)  # behind "word14"
    one, other = await make_mills(PACED, provider=gates)
    got = Events()
    await create(one, got, lambda g: after in thoughts_of(g) + g.text, background=True)
    assert got.text != WORDS
    going_on = asyncio.create_task(resume(other, got))
    await until(lambda: streams_something(other), 30)
    gates.open("mill")
    await going_on
    whole(got)
    assert (await replay(one, got.id)).last["output"] == got.last["output"]


@pytest.mark.parametrize("seed", range(4))
async def test_wherever_a_thinking_stream_is_cut_nothing_is_lost_or_repeated(
    make_mills: MakeMills, seed: int
) -> None:
    dice = random.Random(seed)
    mills = await make_mills(PACED)
    got = Events()

    def cut() -> Callable[[Events], bool]:
        at = len(got.events) + dice.randint(1, 12)
        return lambda got: len(got.events) >= at

    await create(dice.choice(mills), got, cut(), background=True)
    while got.events[-1]["type"] != "response.completed":
        await asyncio.sleep(dice.choice([0, 0.05, 0.2]))  # being away takes time
        await resume(dice.choice(mills), got, cut())
    whole(got)


async def test_an_ended_response_is_read_again_from_any_place(make_mills: MakeMills) -> None:
    one, other = await make_mills(a_script(reasoning=THOUGHTS, text=WORDS))
    got = Events()
    await create(one, got, background=True)
    whole(got)
    again = await replay(other, got.id)
    whole(again)
    for number in (0, 3, 4, 20, 4 + len(THOUGHTS), HEAD - 3, HEAD - 1, HEAD, HEAD + 7):
        rest = await replay(other, got.id, number)
        assert all(event["sequence_number"] > number for event in rest.events)
        kept = [event for event in again.events if event["sequence_number"] > number]
        assert thoughts_of(rest) == thoughts_of(Events(kept))
        assert rest.text == Events(kept).text
        assert rest.last["output"] == got.last["output"]


@pytest.mark.parametrize("lost", ["thought", "thought19"], ids=["some", "the last"])
async def test_lost_thoughts_are_sent_again_before_any_text(
    make_mills: MakeMills, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    one, _ = await make_mills(PACED)
    dropped: list[TokenChunk] = []
    take = streams.Streams._take

    def lossy(self: streams.Streams, message: Any) -> None:
        thinks = isinstance(message, TokenChunk) and message.channel is Channel.REASONING
        if thinks and message.offset > 0 and lost in message.text and len(dropped) < 2:
            dropped.append(message)
            return
        take(self, message)

    monkeypatch.setattr(streams.Streams, "_take", lossy)
    got = await one.streamed()
    assert dropped
    assert (got.reasoning, got.text) == (THOUGHTS, WORDS)
    thoughts_come_first(got)
    await one.nothing_open()


def thoughts_come_first(got: Streamed) -> None:
    kinds = ["reasoning" if "reasoning_content" in d else "text" for d in got._deltas()[1:-1]]
    assert kinds == sorted(kinds), "text came before thoughts"


async def test_a_chat_that_is_joined_late_elsewhere_has_all_thoughts_first(
    make_mills: MakeMills,
) -> None:
    """Sending the same request again is how a chat completion is gone on with."""
    one, other = await make_mills(PACED)
    name = {"metadata": {"request_id": "the-same"}}
    joined: list[Streamed] = []
    joining: list[asyncio.Task[Streamed]] = []

    async def seen(got: Streamed) -> None:
        if "word3" in got.text and not joining:
            joining.append(asyncio.create_task(other.streamed(**name)))

    first = await one.streamed(seen=seen, **name)
    joined.append(await joining[0])
    for got in (first, *joined):
        assert (got.reasoning, got.text) == (THOUGHTS, WORDS)
        thoughts_come_first(got)


async def test_a_browser_goes_on_after_any_thought(make_mills: MakeMills) -> None:
    one, other = await make_mills(PACED)
    body = {"model": "mill", "input": "Why?", "background": True}
    asked = await one.http.post("/v1/responses", json=body)
    request = asked.headers["x-millrace-request-id"]
    got = await events(one, request)

    def thought(found: list[dict[str, str]]) -> str:
        return text_of([e | {"event": "text"} for e in found if e["event"] == "reasoning"])

    assert (thought(got), text_of(got)) == (THOUGHTS, WORDS)
    have = text = ""
    for event in got[:-1]:
        have, text = have + thought([event]), text + text_of([event])
        rest = await events(other, request, event["id"])
        assert have + thought(rest) == THOUGHTS
        assert text + text_of(rest) == WORDS


async def test_the_sdk_shows_what_was_thought(make_mills: MakeMills) -> None:
    one, _ = await make_mills(PACED)
    async with AsyncOpenAI(base_url=f"{one.url}/v1", api_key=one.key) as client:
        async with client.responses.stream(model="mill", input="Why?") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert "response.reasoning_text.delta" in kinds
        assert [item.type for item in final.output] == ["reasoning", "message"]
        assert final.output_text == WORDS
        goes_on = await client.responses.create(
            model="mill",
            input=[*final.output, {"role": "user", "content": "And?"}],  # type: ignore[list-item]
        )
        assert goes_on.output_text == WORDS
