"""Strange messages on a real broker and strange bodies at a real master: nothing dies (B38, C)."""

import asyncio
from uuid import uuid4

from bus.rabbitmq import connect
from millrace.chaos.stack import Stack, until
from queue_schemas import topology
from queue_schemas.codec import encode
from queue_schemas.messages import Completed
from tests.scenarios.conftest import MakeStack

MODEL = {"name": "mill", "provider": "scripted", "slots": 4, "options": {"text": "It turns."}}
KEYS = {"MILLRACE_QUEUE_KEY": "only for tests"}
FORGED = Completed(
    request=uuid4(),
    subtask=uuid4(),
    attempt=1,
    execution=uuid4(),
    worker="stranger",
    text="forged",
    finish_reason="stop",
)
BODIES = {
    "not json": b"\x00\xff\xfe",
    "nothing": b"",
    "deep": b"[" * 20_000,
    "unsigned": encode(FORGED)[0],
    "large": b" " * 1_000_000,
}
HOSTILE = {
    "cut": b"{",
    "deep": b'{"a":' * 100_000,
    "not finite": b'{"model":"mill","messages":[],"temperature":NaN}',
    "half a pair": b'{"model":"\\ud800"}',
    "nul": b'{"model":"mill","messages":[{"role":"user","content":"\\u0000"}]}',
    "digits": b'{"seed":' + b"9" * 5000 + b"}",
    "not utf-8": b"\xff\xfe\x00",
}


async def answers(stack: Stack) -> None:
    async with stack.client() as client:
        answer = await client.chat.completions.create(
            model="mill", messages=[{"role": "user", "content": "Still there?"}]
        )
    assert answer.choices[0].message.content == "It turns."


def all_alive(stack: Stack) -> bool:
    return all(process.popen.poll() is None for process in stack.processes)


async def test_strange_messages_are_put_aside_and_every_process_lives(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(MODEL, **KEYS)
    await stack.start(mill=1)
    bus = await connect(stack.rabbitmq_url, name="stranger")
    queues = (topology.RESULTS, topology.WORKERS, topology.subtasks("mill"))
    try:
        for queue in queues:
            for body in BODIES.values():
                await bus.publish(queue.name, body)
                await bus.publish(queue.name, body, {"x-millrace-signature": "0" * 64})
        # Orders to workers from a stranger, too: nobody obeys them.
        await bus.broadcast(b'{"type":"drain","worker":null}')

        async def all_aside() -> bool:
            depth = await bus.depth(topology.QUARANTINE.name)
            aside = 2 * len(queues) * len(BODIES) + 1
            return depth is not None and depth.ready == aside

        await until(all_aside, 60)
        await answers(stack)
        assert all_alive(stack)

        async def all_taken() -> bool:
            """Waited for: a heartbeat may be in its queue at any moment."""
            depths = [await bus.depth(queue.name) for queue in queues]
            return all(d is not None and (d.ready, d.consumers) == (0, 1) for d in depths)

        await until(all_taken, 60)
    finally:
        await bus.aclose()


async def test_hostile_bodies_at_once_leave_the_masters_answering(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(MODEL, **KEYS)
    await stack.start(masters=2, mill=1)

    async def throw(body: bytes, url: str) -> int:
        async with stack.http(url) as http:
            headers = {"Content-Type": "application/json"}
            answer = await http.post("/v1/chat/completions", content=body, headers=headers)
        assert answer.json()["error"]["type"] == "invalid_request_error"
        return answer.status_code

    urls = [master.url for master in stack.masters]
    statuses = await asyncio.gather(
        *(throw(body, url) for body in HOSTILE.values() for url in urls for _ in range(5))
    )
    assert set(statuses) == {400}
    assert all_alive(stack)
    await answers(stack)
