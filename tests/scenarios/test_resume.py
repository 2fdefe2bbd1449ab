"""The replica that streams dies; OpenAI's own SDK goes on on another (P1, P5, B22, B44)."""

from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from millrace.chaos.stack import Process, Stack, until
from tests.integration.master.mill import payload
from tests.scenarios.conftest import MakeStack

WORDS = " ".join(f"word{n}" for n in range(100))
# The other parts are told of it without its end, where the script finds what is slow.
LASTING = (
    "What is a race, in all detail that you can give, with ponds, gates, sluices, weirs, dams, "
    "dykes, culverts, flumes, tunnels, bridges, ladders for fish, grates and spillways, "
    "and at great length?"
)
QUESTION = "\n".join(
    f"{n}. {question}"
    for n, question in enumerate(("What is a mill?", "What is a wheel?", LASTING), start=1)
)
SCRIPT: dict[str, Any] = {
    "name": "mill",
    "provider": "scripted",
    "slots": 4,
    "max_workers": 2,
    "options": {
        "text": "{step} " + WORDS,
        "tokens_per_second": 40,
        # Whoever ends a master in the middle of this answer has seconds to do it.
        "faults": [
            {"kind": "slow", "contains": "great length", "after_tokens": 12, "seconds": 0.08}
        ],
    },
}


def slower(seconds: float) -> dict[str, Any]:
    """The same with a longer pause before each word of what lasts."""
    options = SCRIPT["options"]
    [fault] = options["faults"]
    return SCRIPT | {"options": options | {"faults": [fault | {"seconds": seconds}]}}


@dataclass
class Seen:
    """What a client has of a response."""

    id: str = ""
    text: str = ""
    cursor: int = -1
    types: list[str] = field(default_factory=list)
    final: Any = None

    def take(self, event: Any) -> None:
        assert event.sequence_number > self.cursor, "an event came twice"
        self.cursor = event.sequence_number
        self.types.append(event.type)
        if event.type == "response.created":
            self.id = event.response.id
        if event.type == "response.output_text.delta":
            self.text += event.delta
        if event.type in {"response.completed", "response.failed", "response.incomplete"}:
            assert self.final is None, "a second terminal event"
            self.final = event.response

    @property
    def request(self) -> str:
        return self.id.removeprefix("resp_")


async def read(stream: Any, seen: Seen) -> None:
    """Read a stream to its end."""
    async for event in stream:
        seen.take(event)


async def read_and_kill(stream: Any, seen: Seen, word: str, master: Process) -> None:
    """Read until the text has a word, kill the process, and see the stream break."""

    async def read_on() -> None:
        async for event in stream:
            seen.take(event)
            if word in seen.text:
                master.kill()

    with pytest.raises(openai.APIConnectionError):
        await read_on()


async def agrees(stack: Stack, seen: Seen) -> dict[str, Any]:
    record = await stack.ended(seen.request)
    assert record["state"] == "completed"
    assert seen.text == record["answer"]
    assert seen.final.output_text == record["answer"]
    assert all(len(s["attempts"]) == 1 for s in record["subtasks"]), "it was generated again"
    return record


@pytest.mark.parametrize(
    ("model", "asked", "word"),
    [("mill", LASTING, "word10"), ("millrace/split", QUESTION, "part-2 word0 word1")],
    ids=["one answer", "split"],
)
async def test_the_sdk_goes_on_on_another_replica_when_the_one_that_streams_is_killed(
    make_stack: MakeStack, model: str, asked: str, word: str
) -> None:
    # One slot each: the last part begins when another has ended, however busy the machine is.
    stack = make_stack(SCRIPT | {"slots": 1})
    await stack.start(masters=2, mill=2)
    seen = Seen()
    first, second = (stack.client(master.url) for master in stack.masters)
    async with first, second:
        stream = await first.responses.create(
            model=model, input=asked, background=True, stream=True
        )
        await read_and_kill(stream, seen, word, stack.masters[0])
        rest = await second.responses.retrieve(seen.id, stream=True, starting_after=seen.cursor)
        await read(rest, seen)
        replayed = Seen()
        await read(await second.responses.retrieve(seen.id, stream=True), replayed)
    record = await agrees(stack, seen)
    assert replayed.text == record["answer"]
    assert replayed.cursor == seen.cursor
    assert seen.types.count("response.completed") == 1


async def test_a_stream_goes_on_twice_and_back_on_a_master_that_was_started_anew(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(slower(0.2))  # it has to last for two kills and what is between them
    await stack.start(masters=2, mill=1)
    one, other = stack.masters
    seen = Seen()
    async with stack.client(one.url) as client:
        stream = await client.responses.create(
            model="mill", input=LASTING, background=True, stream=True
        )
        await read_and_kill(stream, seen, "word10", one)
    reborn = stack.start_master()
    async with stack.client(other.url) as client:
        stream = await client.responses.retrieve(seen.id, stream=True, starting_after=seen.cursor)
        await read_and_kill(stream, seen, "word20", other)
    await stack.ready(reborn)
    async with stack.client(reborn.url) as client:
        stream = await client.responses.retrieve(seen.id, stream=True, starting_after=seen.cursor)
        await read(stream, seen)
    await agrees(stack, seen)


async def test_background_responses_outlive_every_master(make_stack: MakeStack) -> None:
    stack = make_stack(SCRIPT)
    await stack.start(masters=1, mill=1)
    [master] = stack.masters
    async with stack.client() as client:
        accepted = [
            await client.responses.create(model="mill", input=f"Why {n}?", background=True)
            for n in range(6)  # more than there are slots: some wait in the queue
        ]
    assert {response.status for response in accepted} == {"queued"}
    master.kill()
    reborn = stack.start_master()
    await stack.ready(reborn)
    async with stack.client(reborn.url) as client:
        for response in accepted:

            async def done(identity: str = response.id) -> Any:
                found = await client.responses.retrieve(identity)
                return found if found.status == "completed" else None

            found = await until(done, 60)
            record = await stack.record(response.id.removeprefix("resp_"))
            assert found.output_text == record["answer"]
            assert WORDS in found.output_text


async def test_a_chat_whose_master_is_told_to_stop_ends_with_an_error_and_is_answered(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(SCRIPT, MILLRACE_DRAIN_SECONDS="0.5")
    await stack.start(masters=2, mill=1)
    one, other = stack.masters
    body = {"model": "mill", "messages": [{"role": "user", "content": LASTING}], "stream": True}
    frames: list[Any] = []
    async with (
        stack.http(one.url) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        request = answer.headers["x-millrace-request-id"]
        async for line in answer.aiter_lines():
            if (frame := payload(line)) is not None:
                frames.append(frame)
                if len(frames) == 10:
                    one.terminate()
    errors = [f["error"]["code"] for f in frames if isinstance(f, dict) and "error" in f]
    assert errors == ["server_draining"]
    assert frames[-1] == "[DONE]"
    assert frames.count("[DONE]") == 1
    assert one.popen.wait(60) == 0
    shown = "".join(
        choice["delta"].get("content") or ""
        for frame in frames
        if isinstance(frame, dict)
        for choice in frame.get("choices", ())
    )
    # The chat itself has no way to go on; its request has, for whoever asks.
    async with stack.http(other.url) as http:
        query = {"starting_after": str(len(shown))}
        rest = await http.get(f"/v1/requests/{request}/events", params=query)
    texts = [payload(line) for line in rest.text.splitlines()]
    record = await stack.ended(request)
    assert record["state"] == "completed"
    assert shown + "".join(t["text"] for t in texts if t and "text" in t) == record["answer"]


async def test_a_response_whose_master_is_told_to_stop_says_so_and_goes_on_elsewhere(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(SCRIPT, MILLRACE_DRAIN_SECONDS="0.5")
    await stack.start(masters=2, mill=1)
    one, other = stack.masters
    seen = Seen()
    told = False
    async with stack.client(one.url) as client:
        stream = await client.responses.create(
            model="mill", input=LASTING, background=True, stream=True
        )
        async for event in stream:
            if event.type == "error":
                assert event.code == "server_draining"
                assert event.sequence_number == seen.cursor
                break
            seen.take(event)
            if "word5 " in seen.text and not told:
                one.terminate()
                told = True
    assert seen.final is None
    assert one.popen.wait(60) == 0
    async with stack.client(other.url) as client:
        stream = await client.responses.retrieve(seen.id, stream=True, starting_after=seen.cursor)
        await read(stream, seen)
    await agrees(stack, seen)


async def test_the_stream_helper_of_the_sdk_reads_again_and_leaves_out_what_it_has(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(SCRIPT)
    await stack.start(masters=2, mill=1)
    first, second = (stack.client(master.url) for master in stack.masters)
    seen = Seen()
    async with first, second:
        async with first.responses.stream(model="mill", input="Why?", background=True) as stream:
            async for event in stream:
                seen.take(event)
                if "word20" in seen.text:
                    break
        async with second.responses.stream(
            response_id=seen.id, starting_after=seen.cursor
        ) as stream:
            await read(stream, seen)
            final = await stream.get_final_response()
    await agrees(stack, seen)
    assert final.output_text == seen.text
