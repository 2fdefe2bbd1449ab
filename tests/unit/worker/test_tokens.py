"""Coalescing: what is sent, when, and with which offsets."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from queue_schemas.messages import Channel, Started, SubtaskRequest, TokenChunk
from tests.doubles.no_waiting import no_waiting
from tests.doubles.subtasks import a_subtask
from worker.tokens import TokenStream

WINDOW = 0.05
FOREVER = 1000.0


class Wire:
    """What was sent, to which queue and when."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.at: list[float] = []
        self.open = asyncio.Event()
        self.open.set()
        self._news = asyncio.Event()

    async def send(self, queue: str, message: Started | TokenChunk) -> None:
        await self.open.wait()
        self.sent.append((queue, message))
        self.at.append(asyncio.get_running_loop().time())
        self._news.set()

    def chunks(self, queue: str = "tokens.one") -> list[TokenChunk]:
        return [m for to, m in self.sent if to == queue and isinstance(m, TokenChunk)]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()


def a_stream(wire: Wire, window: float = WINDOW, **fields: Any) -> TokenStream:
    subtask: SubtaskRequest = a_subtask(**{"reply_to": "tokens.one"} | fields)
    started = Started(
        request=subtask.request,
        subtask=subtask.subtask,
        attempt=1,
        execution=uuid4(),
        delivery=0,
        worker="w",
    )
    return TokenStream(subtask, started, wire.send, window)


async def test_started_and_the_first_text_go_at_once() -> None:
    wire = Wire()
    stream = a_stream(wire, FOREVER)
    stream.add("The")
    stream.add(" mill")

    await wire.until(wire.chunks)

    assert isinstance(wire.sent[0][1], Started)
    assert wire.chunks()[0].text == "The mill"
    stream.close()


async def test_later_text_waits_for_the_window_and_comes_as_one_chunk() -> None:
    no_waiting(asyncio.get_running_loop())  # the window is not over because we stood still
    wire = Wire()
    stream = a_stream(wire)
    stream.add("a")
    await wire.until(lambda: len(wire.chunks()) == 1)
    for letter in "bcd":
        stream.add(letter)
        await asyncio.sleep(0)
    await wire.until(lambda: len(wire.chunks()) == 2)

    second = wire.chunks()[1]
    assert (second.offset, second.text) == (1, "bcd")
    assert wire.at[-1] - wire.at[-2] >= WINDOW * 0.9


async def test_a_slow_engines_text_is_not_held_back() -> None:
    wire = Wire()
    stream = a_stream(wire)
    stream.add("a")
    await wire.until(lambda: len(wire.chunks()) == 1)
    await asyncio.sleep(WINDOW * 1.1)

    stream.add("b")
    for _ in range(3):
        await asyncio.sleep(0)  # it is sent without a timer

    assert [chunk.text for chunk in wire.chunks()] == ["a", "b"]


async def test_flush_sends_the_rest_without_waiting_for_the_window() -> None:
    wire = Wire()
    stream = a_stream(wire, FOREVER)
    stream.add("a")
    await wire.until(wire.chunks)
    stream.add("b")

    await stream.flush()

    assert [chunk.text for chunk in wire.chunks()] == ["a", "b"]


async def test_a_slow_wire_holds_nothing_up_and_text_gathers_meanwhile() -> None:
    wire = Wire()
    wire.open.clear()
    stream = a_stream(wire, 0.0)
    for letter in "abc":
        stream.add(letter)
        await asyncio.sleep(0)
    wire.open.set()
    await stream.flush()

    assert "".join(chunk.text for chunk in wire.chunks()) == "abc"
    assert len(wire.chunks()) < 3


async def test_offsets_begin_behind_the_shown_text_and_all_of_it_is_kept() -> None:
    wire = Wire()
    stream = a_stream(wire, shown="Shown. ")
    stream.add("New.")
    await stream.flush()

    assert [(chunk.offset, chunk.text) for chunk in wire.chunks()] == [(7, "New.")]
    assert stream.text() == "Shown. New."


async def test_channels_count_apart() -> None:
    wire = Wire()
    stream = a_stream(wire)
    stream.add("hm", Channel.REASONING)
    stream.add("Yes")
    await stream.flush()
    stream.add("!", Channel.REASONING)
    await stream.flush()

    found = {(chunk.channel, chunk.offset, chunk.text) for chunk in wire.chunks()}
    assert found == {
        (Channel.CONTENT, 0, "Yes"),
        (Channel.REASONING, 0, "hm"),
        (Channel.REASONING, 2, "!"),
    }


async def test_without_anybody_to_stream_to_nothing_is_sent_until_somebody_asks() -> None:
    wire = Wire()
    stream = a_stream(wire, reply_to=None)
    stream.add("Hidden")
    await stream.flush()
    assert wire.sent == []

    stream.resend(3, "tokens.two")
    await wire.until(lambda: wire.chunks("tokens.two"))

    assert [(c.offset, c.text) for c in wire.chunks("tokens.two")] == [(3, "den")]


async def test_text_that_came_during_a_slow_sending_follows_by_itself() -> None:
    wire = Wire()
    stream = a_stream(wire, 0.0)
    await wire.until(lambda: wire.sent)
    wire.open.clear()
    stream.add("a")
    for _ in range(3):
        await asyncio.sleep(0)  # "a" is on its way now
    stream.add("b")

    wire.open.set()
    await wire.until(lambda: len(wire.chunks()) == 2)

    assert [(c.offset, c.text) for c in wire.chunks()] == [(0, "a"), (1, "b")]


async def test_a_resend_is_answered_at_once() -> None:
    wire = Wire()
    stream = a_stream(wire, FOREVER)
    stream.add("abc")
    await wire.until(wire.chunks)
    stream.add("def")

    stream.resend(1, "tokens.two")
    await wire.until(lambda: wire.chunks("tokens.two"))

    assert [(c.offset, c.text) for c in wire.chunks("tokens.two")] == [(1, "bcdef")]


async def test_thoughts_go_before_the_answer_that_follows_them() -> None:
    wire = Wire()
    stream = a_stream(wire)
    stream.add("Let me", Channel.REASONING)
    await wire.until(wire.chunks)
    stream.add(" see.", Channel.REASONING)
    stream.add("It grinds.")
    await stream.flush()
    said = [(chunk.text, chunk.thought) for chunk in wire.chunks()]
    assert said == [("Let me", 0), (" see.", 0), ("It grinds.", len("Let me see."))]


async def test_a_resend_brings_the_thoughts_again_before_the_text() -> None:
    wire = Wire()
    stream = a_stream(wire)
    stream.add("Let me see.", Channel.REASONING)
    stream.add("It grinds.")
    await stream.flush()
    stream.resend(3, "tokens.two", reasoning=4)
    await wire.until(lambda: len(wire.chunks("tokens.two")) == 2)
    again = [(c.channel, c.offset, c.text) for c in wire.chunks("tokens.two")]
    assert again == [(Channel.REASONING, 4, "me see."), (Channel.CONTENT, 3, "grinds.")]


async def test_a_resend_during_a_sending_still_brings_the_thoughts_first() -> None:
    wire = Wire()
    stream = a_stream(wire)
    wire.open.clear()
    stream.add("Let me see.", Channel.REASONING)
    stream.add("It grinds.")
    flushing = asyncio.create_task(stream.flush())
    await asyncio.sleep(0)
    stream.resend(0, "tokens.two", reasoning=0)
    wire.open.set()
    await flushing
    await wire.until(lambda: len(wire.chunks("tokens.two")) >= 2)
    assert [c.channel for c in wire.chunks("tokens.two")][:2] == [
        Channel.REASONING,
        Channel.CONTENT,
    ]


async def test_a_resend_beyond_the_text_waits_for_more() -> None:
    wire = Wire()
    stream = a_stream(wire)
    stream.add("abc")
    await stream.flush()

    stream.resend(10, "tokens.two")
    stream.add("def")
    await stream.flush()

    assert [(c.offset, c.text) for c in wire.chunks("tokens.two")] == [(3, "def")]


async def test_nothing_is_sent_after_close() -> None:
    wire = Wire()
    stream = a_stream(wire)
    stream.add("a")
    stream.close()
    stream.add("b")
    await stream.flush()

    assert wire.chunks() == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.text(max_size=5)),
        st.tuples(st.just("yield"), st.integers(min_value=0, max_value=3)),
        st.tuples(st.just("resend"), st.integers(min_value=0, max_value=30)),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=25,
)


@given(shown=st.text(max_size=5), steps=STEPS, window=st.sampled_from([0.0, FOREVER]))
def test_chunks_always_tile_the_text(
    shown: str, steps: list[tuple[str, Any]], window: float
) -> None:
    """Whatever happens: every chunk is the text at its offset, and none is missing at the end."""

    async def play() -> None:
        wire = Wire()
        stream = a_stream(wire, window, shown=shown)
        whole, queue, resent_from = shown, "tokens.one", len(shown)
        for index, (step, value) in enumerate(steps):
            match step:
                case "add":
                    stream.add(value)
                    whole += value
                case "yield":
                    for _ in range(value):
                        await asyncio.sleep(0)
                case "resend":
                    queue, resent_from = f"tokens.{index}", min(value, len(whole))
                    stream.resend(value, queue)
                case "flush":
                    await stream.flush()
        await stream.flush()
        stream.close()

        assert stream.text() == whole
        for _, message in wire.sent:
            if isinstance(message, TokenChunk):
                end = message.offset + len(message.text)
                assert whole[message.offset : end] == message.text
        assert "".join(chunk.text for chunk in wire.chunks(queue)) == whole[resent_from:]

    asyncio.run(play())
