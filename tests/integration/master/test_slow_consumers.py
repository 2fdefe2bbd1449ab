"""A client that does not read is cut off, and costs nobody else anything (B23)."""

import asyncio
import json
import socket
from functools import partial

from master import metrics
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, a_script
from tests.integration.master.responses_client import Events, replay
from tests.integration.master.test_one_ending import narrow_client
from tests.integration.master.test_request_events import parse, text_of

WORDS = " ".join(f"word{n}" for n in range(60))
MUCH = a_script("much", text=200 * "w", tokens=12_000)
PACED = a_script(text=WORDS, tokens_per_second=30)
QUICKLY = {"slow_consumer_seconds": 0.4, "slow_consumer_characters": 10_000}


def connect(mill: Mill) -> socket.socket:
    """A client with a small window, which asks for a long stream."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", mill.port))
    body = json.dumps(mill.body(model="much", stream=True)).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: mill",
        f"Authorization: Bearer {mill.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    client.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    client.setblocking(False)
    return client


def be_patient(mill: Mill) -> None:
    """From now on nobody is too slow: the reader is this process, which may stand still."""
    settings = mill.running.settings
    mill.running.settings = settings.model_copy(update={"slow_consumer_seconds": 600})


async def read_slowly(client: socket.socket, seconds: int) -> None:
    """Read a byte a second."""
    loop = asyncio.get_running_loop()
    for _ in range(seconds):
        await loop.sock_recv(client, 1)
        await asyncio.sleep(1)  # the slowness is the point


async def read_all(client: socket.socket) -> int:
    """Read until the other side has closed; returns how many bytes there were."""
    loop, count = asyncio.get_running_loop(), 0
    try:
        while piece := await loop.sock_recv(client, 65_536):
            count += len(piece)
    except ConnectionResetError:
        pass
    return count


async def request_of(mill: Mill, model: str) -> str:
    rows = await mill.rows("SELECT id FROM millrace.requests WHERE model = :model", model=model)
    (found,) = rows
    return str(found[0])


async def test_who_reads_a_byte_a_second_is_cut_and_can_read_its_answer_later(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(MUCH, PACED, **QUICKLY)
    neighbour = asyncio.create_task(mill.streamed())
    cut = slow_consumers()
    with connect(mill) as client:
        await until(lambda: both_begun(mill), 30)
        reading = asyncio.create_task(read_slowly(client, 60))
        await until(partial(one_more, cut), 60)
        await until(lambda: only_stream(mill, "mill"), 60)
        reading.cancel()
    # The generation was not stalled by it, and the request was not cancelled.
    record = await mill.until_state(await request_of(mill, "much"), "completed", seconds=60)
    assert len(record["answer"]) == 12_000 * 201 - 1
    got = await neighbour
    assert got.text == WORDS
    be_patient(mill)
    again = await mill.http.get(f"/v1/requests/{record['id']}/events")
    assert text_of(parse(again.text)) == record["answer"]


async def only_stream(mill: Mill, model: str) -> bool:
    lives = mill.running.streams._live.values()
    return {step.model for live in lives for step in live.plan.steps} <= {model}


async def closed(mill: Mill) -> bool:
    return len(mill.running.streams) == 0


async def test_the_neighbour_of_slow_clients_gets_its_text_while_they_hold_on(
    make_mill: MakeMill,
) -> None:
    # So patiently that whoever had to wait for them would wait for longer than the test.
    mill = await make_mill(MUCH, PACED, **QUICKLY | {"slow_consumer_seconds": 600})

    async def all_hold_on() -> bool:
        return len(mill.running.streams) == 3

    clients = [connect(mill) for _ in range(3)]
    try:
        await until(all_hold_on, 30)
        got = await mill.streamed()
        assert await until(all_hold_on, 30), "only its own stream has ended"
    finally:
        for client in clients:
            client.close()
    assert got.text == WORDS


async def test_what_waits_for_a_slow_client_is_bounded(make_mill: MakeMill) -> None:
    mill = await make_mill(MUCH, **QUICKLY | {"slow_consumer_seconds": 1.5})
    with connect(mill) as client:
        await mill.until_state(await until(lambda: begun(mill), 30), "completed", seconds=60)
        await until(lambda: closed(mill), 30)
        count = await asyncio.wait_for(read_all(client), 60)
    # Its socket, ours, the server's buffer and one frame; the answer has two million bytes.
    assert 0 < count < 500_000


async def both_begun(mill: Mill) -> bool:
    return await mill.count("requests") == 2


async def begun(mill: Mill) -> str | None:
    rows = await mill.rows("SELECT id FROM millrace.requests")
    return str(rows[0][0]) if rows else None


async def test_a_request_whose_slow_client_was_cut_runs_on(make_mill: MakeMill) -> None:
    gates = Gates(6_000)
    much = a_script("much", text=200 * "w", tokens=6_001)
    mill = await make_mill(much, **QUICKLY, provider=gates)
    cut = slow_consumers()
    with connect(mill):
        await until(partial(one_more, cut), 30)
        await until(lambda: closed(mill), 30)
        request = await request_of(mill, "much")
        await mill.until_state(request, "running")
    gates.open("much")
    await mill.until_state(request, "completed")


async def test_a_response_that_was_cut_goes_on_after_the_number_of_its_error(
    make_mill: MakeMill,
) -> None:
    much = a_script("much", text=200 * "w", tokens=6_000)
    mill = await make_mill(much, **QUICKLY | {"slow_consumer_seconds": 1})
    asked = await mill.http.post(
        "/v1/responses", json={"model": "much", "input": "Why?", "background": True}
    )
    path = f"/v1/responses/{asked.json()['id']}"
    got = Events()
    cut: float | None = slow_consumers()
    query = {"stream": "true", "starting_after": "1"}
    async with narrow_client(mill) as http, http.stream("GET", path, params=query) as answer:
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                break
            got.take(line)
            if got.text and cut is not None:
                be_patient(mill)  # with the last frame, and with who reads the rest
                await until(partial(one_more, cut), 30)
                cut = None
    error = got.events.pop()
    assert (error["type"], error["code"]) == ("error", "slow_consumer")
    assert error["sequence_number"] == got.cursor
    rest = await replay(mill, asked.json()["id"], got.cursor)
    record = await mill.record(asked.headers["x-millrace-request-id"])
    assert got.text + rest.text == record["answer"]
    assert rest.last["status"] == "completed"


def slow_consumers() -> float:
    return metrics.registry.get_sample_value("millrace_slow_consumers_total") or 0


async def one_more(than: float) -> bool:
    return slow_consumers() > than
