"""Messages that nobody should have sent: put aside, and nothing dies (B38, C45, C48)."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from bus.memory import MemoryBus
from master.metrics import registry
from millrace.chaos.stack import until
from queue_schemas import topology
from queue_schemas.codec import SIGNATURE_HEADER, KeyRing, encode
from queue_schemas.messages import (
    Completed,
    ErrorKind,
    Failed,
    Heartbeat,
    Message,
    Started,
    TokenChunk,
    Usage,
)
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import QUEUE_KEY, Mill, a_script

KEY = KeyRing.parse(QUEUE_KEY)
ANOTHER_KEY = KeyRing.parse("another long key")
SCRIPT = a_script(text="one two three", tokens_per_second=20)


def a_completed(**fields: Any) -> Completed:
    return Completed.model_validate(
        {
            "request": uuid4(),
            "subtask": uuid4(),
            "attempt": 1,
            "execution": uuid4(),
            "worker": "stranger",
            "text": "forged",
            "finish_reason": "stop",
        }
        | fields
    )


def a_failed(**fields: Any) -> Failed:
    whole = a_completed().model_dump(exclude={"status", "text"}) | {
        "kind": ErrorKind.PERMANENT,
        "code": "bad_request",
        "message": "forged",
    }
    return Failed.model_validate(whole | fields)


def a_start(**fields: Any) -> Started:
    whole = a_completed().model_dump(include={"request", "subtask", "attempt", "execution"})
    return Started.model_validate(whole | {"delivery": 0, "worker": "stranger"} | fields)


def a_beat(**fields: Any) -> Heartbeat:
    whole = {
        "worker": "stranger",
        "model": "mill",
        "slots": 1,
        "provider": "scripted",
        "host": "h",
        "pid": 1,
        "release": "0",
    }
    return Heartbeat.model_validate(whole | fields)


GARBAGE = {
    "empty": b"",
    "not json": b"\x00\xff\xfe",
    "an array": b"[]",
    "a number": b"7",
    "nothing in it": b"{}",
    "another version": b'{"version":2}',
    "nested": b'{"a":' * 5000,
    "half": a_completed().model_dump_json().encode()[:-20],
    "wrong attempt": a_completed().model_dump_json().replace('"attempt":1', '"attempt":0').encode(),
    "not finite": a_completed(usage=Usage(engine_seconds=1.5))
    .model_dump_json()
    .replace("1.5", "NaN")
    .encode(),
}
QUEUES = [
    topology.RESULTS.name,
    topology.WORKERS.name,
    topology.subtasks("mill").name,
]


def signature(body: bytes) -> dict[str, str]:
    return {SIGNATURE_HEADER: KEY.sign(body)}


async def publish(mill: Mill, queue: str, body: bytes, headers: dict[str, str]) -> None:
    bus = MemoryBus(mill.broker)
    await bus.publish(queue, body, headers)
    await bus.aclose()


async def still_answers(mill: Mill) -> None:
    got = await mill.streamed("still there?")
    assert got.ends_once()
    assert got.text == "one two three"


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
async def test_garbage_is_put_aside_on_every_queue_and_nothing_dies(
    make_mill: MakeMill, signed: bool
) -> None:
    mill = await make_mill(SCRIPT)
    for queue in QUEUES:
        for body in GARBAGE.values():
            await publish(mill, queue, body, signature(body) if signed else {})

    async def all_aside() -> bool:
        return len(mill.quarantined()) == len(QUEUES) * len(GARBAGE)

    await until(all_aside, 30)
    assert all(mill.quarantined())
    if not signed:
        assert all("signature" in reason for reason in mill.quarantined())
    await still_answers(mill)


async def test_garbage_on_the_tokens_queue_is_dropped_and_streams_go_on(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(SCRIPT)
    queue = mill.running.streams.queue.name
    forged = TokenChunk(
        request=uuid4(),
        subtask=uuid4(),
        attempt=1,
        execution=uuid4(),
        delivery=0,
        offset=0,
        text="forged",
    )

    async def throw(got: Any) -> None:
        bus = MemoryBus(mill.broker)
        for body in GARBAGE.values():
            await bus.stream(queue, body, {})
            await bus.stream(queue, body, signature(body))
        own = forged.model_copy(update={"request": UUID(got.request)})
        for message in (forged, own, own.model_copy(update={"offset": 10**6})):
            await bus.stream(queue, *encode(message, KEY))
            await bus.stream(queue, *encode(message, ANOTHER_KEY))
        await bus.aclose()

    got = await mill.streamed(seen=throw)
    assert got.ends_once()
    assert got.text == "one two three"
    await still_answers(mill)


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        (topology.RESULTS.name, a_completed()),
        (topology.RESULTS.name, a_failed()),
        (topology.WORKERS.name, a_start()),
        (topology.WORKERS.name, a_beat()),
    ],
    ids=["completed", "failed", "started", "heartbeat"],
)
async def test_a_message_signed_with_another_key_is_put_aside(
    make_mill: MakeMill, queue: str, message: Message
) -> None:
    mill = await make_mill(SCRIPT)
    await publish(mill, queue, *encode(message, ANOTHER_KEY))

    async def aside() -> bool:
        return mill.quarantined() == ["the signature's key is not known here"]

    await until(aside, 30)
    await still_answers(mill)
    assert "stranger" not in [worker["name"] for worker in mill.running.view.workers]


async def test_messages_about_unknown_things_change_nothing(make_mill: MakeMill) -> None:
    """Signed and well formed, as after a restored backup."""
    mill = await make_mill(SCRIPT)
    for queue, message in [
        (topology.RESULTS.name, a_completed()),
        (topology.RESULTS.name, a_failed()),
        (topology.RESULTS.name, a_failed(kind=ErrorKind.TRANSIENT)),
        (topology.WORKERS.name, a_start()),
        (topology.WORKERS.name, a_beat(model="nobody's", worker="stranger")),
    ]:
        await publish(mill, queue, *encode(message, KEY))
    await still_answers(mill)

    async def settled() -> bool:
        queues = [mill.broker.queues[name] for name in (topology.RESULTS.name, "workers")]
        return not any(q.ready or c._in_hand for q in queues for c in q.consumers)

    await until(settled, 30)
    assert not mill.quarantined()
    assert not mill.broker.queues[topology.DEAD.name].ready
    assert await mill.count("attempts") == 1


NUL = "\x00"
CRAZY: dict[str, Callable[[Completed], Completed]] = {
    "nul in the text": lambda r: r.model_copy(update={"text": f"a{NUL}b"}),
    "nul in a tool call": lambda r: r.model_copy(update={"tool_calls": ({"id": f"{NUL}"},)}),
    "huge counts": lambda r: r.model_copy(
        update={"usage": Usage(prompt_tokens=2**40, completion_tokens=2**40)}
    ),
    "huge attempt": lambda r: r.model_copy(update={"attempt": 2**40}),
}


@pytest.mark.parametrize("name", CRAZY)
async def test_a_result_that_the_database_refuses_harms_no_other(
    make_mill: MakeMill, name: str
) -> None:
    gates = Gates(1)
    mill = await make_mill(SCRIPT, provider=gates)

    async def claimed() -> Any:
        query = "SELECT id, request_id, execution FROM millrace.subtasks WHERE state = 'running'"
        return next(iter(await mill.rows(query)), None)

    async def forge(got: Any) -> None:
        if got.text and not forged:
            row = await until(claimed, 30)
            result = a_completed(subtask=row.id, request=row.request_id, execution=row.execution)
            forged.append(CRAZY[name](result))
            await publish(mill, topology.RESULTS.name, *encode(forged[0], KEY))
            await until(partial(all_collected, mill), 30)
            gates.open("mill")

    forged: list[Completed] = []
    got = await asyncio.wait_for(mill.streamed(seen=forge), 60)
    assert forged
    assert got.ends_once()
    await still_answers(mill)
    await mill.idle()


async def all_collected(mill: Mill) -> bool:
    queue = mill.broker.queues[topology.RESULTS.name]
    return not queue.ready and not queue.consumers[0]._in_hand


def counter(name: str, **labels: str) -> float:
    return registry.get_sample_value(f"millrace_{name}_total", {"model": "mill"} | labels) or 0.0


async def test_a_late_result_changes_nothing_and_is_in_the_ledger(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="word", tokens=1000, tokens_per_second=20))

    async def delete(got: Any) -> None:
        if got.text:
            await mill.http.delete(f"/v1/requests/{got.request}")

    got = await mill.streamed(seen=delete)
    await mill.idle()

    async def own_is_in() -> dict[str, Any] | None:
        record = await mill.record(got.request)
        return record if record["subtasks"][0]["attempts"] else None

    before = await until(own_is_in, 30)
    await until(partial(all_collected, mill), 30)  # its own result is counted, too
    [subtask] = before["subtasks"]
    late = a_completed(
        request=got.request,
        subtask=subtask["id"],
        worker="late",
        usage=Usage(prompt_tokens=7, completion_tokens=9),
    )
    counted = [counter("results", outcome="late"), counter("tokens", kind="prompt")]
    await publish(mill, topology.RESULTS.name, *encode(late, KEY))
    await publish(mill, topology.RESULTS.name, *encode(late, KEY))

    async def entered() -> dict[str, Any] | None:
        record = await mill.record(got.request)
        lines = [a for a in record["subtasks"][0]["attempts"] if a["worker"] == "late"]
        return record if lines else None

    after = await until(entered, 30)
    assert (after["state"], after["answer"]) == ("cancelled", None)
    assert after["finished_at"] == before["finished_at"]
    assert after["subtasks"][0]["state"] == "cancelled"
    lines = [a for a in after["subtasks"][0]["attempts"] if a["worker"] == "late"]
    assert [(a["outcome"], a["applied"], a["completion_tokens"]) for a in lines] == [
        ("completed", False, 9)
    ]
    assert after["usage"]["completion_tokens"] >= 9

    await until(partial(all_collected, mill), 30)
    counted_now = [counter("results", outcome="late"), counter("tokens", kind="prompt")]
    assert counted_now == [counted[0] + 1, counted[1] + 7], "it was delivered twice, and done once"
