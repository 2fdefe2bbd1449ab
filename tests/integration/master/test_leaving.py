"""Clients that leave, at whatever moment, leave nothing behind (B08, B23, B41, P3, P4)."""

import asyncio
import contextlib
import json
import random
import socket

import httpx2
import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, Streamed, a_script, payload

SLOW = a_script(text="{prompt} goes on and on", tokens=4000, tokens_per_second=50)
STATES = {"completed", "failed", "cancelled", "expired"}


def raw_post(mill: Mill, **more: object) -> bytes:
    body = json.dumps(mill.body(**more)).encode()  # type: ignore[arg-type]
    head = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: mill",
        f"Authorization: Bearer {mill.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def states(mill: Mill) -> list[str]:
    return [row[0] for row in await mill.rows("SELECT state FROM millrace.requests")]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_leaves_before_its_request_is_stored_is_cancelled(
    make_mill: MakeMill, stream: bool
) -> None:
    mill = await make_mill(SLOW)

    async def waits_for_the_table() -> bool:
        query = (  # and not the sweep's, which wants the table as well
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%INSERT INTO millrace.requests%'"
        )
        return bool((await mill.rows(query))[0][0])

    async with mill.running.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE millrace.requests IN EXCLUSIVE MODE"))
        reader, writer = await asyncio.open_connection("127.0.0.1", mill.port)
        writer.write(raw_post(mill, stream=stream))
        await until(waits_for_the_table, 30)
        writer.close()
        await writer.wait_closed()
        assert await mill.count("requests") == 0

    async def cancelled() -> bool:
        return await states(mill) == ["cancelled"]

    await until(cancelled, 30)
    await mill.idle()
    assert await reader.read() == b""


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_leaves_within_milliseconds_leaves_nothing_running(
    make_mill: MakeMill, stream: bool
) -> None:
    mill = await make_mill(SLOW)

    async def visit(number: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", mill.port)
        writer.write(raw_post(mill, stream=stream))
        await asyncio.sleep(number / 1000)
        writer.close()
        await writer.wait_closed()

    for number in range(0, 40, 2):
        await visit(number)
    await mill.idle()
    assert set(await states(mill)) == {"cancelled"}


async def test_a_client_that_leaves_a_whole_answer_stops_the_worker(make_mill: MakeMill) -> None:
    mill = await make_mill(SLOW)
    asking = asyncio.create_task(mill.ask())

    async def running() -> bool:
        return await states(mill) == ["running"]

    await until(running, 30)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await mill.idle()
    assert await states(mill) == ["cancelled"]

    async def in_the_ledger() -> bool:
        rows = await mill.rows("SELECT outcome, applied FROM millrace.attempts")
        return [tuple(row) for row in rows] == [("cancelled", False)]

    await until(in_the_ledger, 30)


async def leave_sometime(mill: Mill, number: int, dice: random.Random) -> str | None:
    """Stream, and leave after a random number of lines; returns the request's id."""
    lines = dice.choice([0, 1, 2, 5, 20, 10_000])
    try:
        async with asyncio.timeout(dice.choice([0.05, 0.5, 30])):
            async with mill.stream(f"question {number}") as response:
                got = Streamed(response.status_code, response.headers, [])
                if lines:
                    async for line in response.aiter_lines():
                        if (frame := payload(line)) is not None:
                            got.frames.append(frame)
                        lines -= 1
                        if not lines:
                            break
                if got.frames[-1:] == ["[DONE]"]:
                    assert got.ends_once()
                return got.request
    except (TimeoutError, httpx2.TransportError):
        return None


async def test_two_hundred_streams_with_random_departures_end_once_each_and_leak_nothing(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(
        a_script(
            text="{prompt} is answered", tokens=20, tokens_per_second=100, entry={"slots": 64}
        ),
    )
    await mill.streamed()
    await mill.idle()
    before = len(asyncio.all_tasks())
    dice = random.Random(1)
    left = await asyncio.gather(*(leave_sometime(mill, n, dice) for n in range(200)))
    assert len({identity for identity in left if identity}) > 50
    await mill.idle(60)
    found = await states(mill)
    assert set(found) <= STATES
    assert {"completed", "cancelled"} <= set(found)
    # Whoever read to the end is completed, and each request ended in the database exactly once.
    unfinished = await mill.rows(
        "SELECT id FROM millrace.requests WHERE finished_at IS NULL OR state NOT IN "
        "('completed', 'cancelled')"
    )
    assert unfinished == []
    assert await mill.count("outbox") == 0

    async def no_more_tasks() -> bool:
        return len(asyncio.all_tasks()) <= before + 2  # kept connections may hold a timer or two

    await mill.http.aclose()
    await until(no_more_tasks, 30)


async def test_a_client_that_hardly_reads_holds_nobody_up(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text=200 * "w", tokens=4000), slow_consumer_seconds=600)
    with socket.create_connection(("127.0.0.1", mill.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(raw_post(mill, stream=True))
        connection.setblocking(False)
        read = 0
        loop = asyncio.get_running_loop()
        for _ in range(20):
            read += len(await loop.sock_recv(connection, 1))
            await asyncio.sleep(0.02)  # the slowness is the point
        assert read == 20

        async def completed() -> bool:
            return await states(mill) == ["completed"]

        # The generation is over although nobody reads; another client is served meanwhile.
        await until(completed, 30)
        assert (await mill.ask("another")).status_code == 200
        assert len(mill.running.streams) == 1
    await mill.idle()
    assert await states(mill) == ["completed", "completed"]


async def test_a_client_that_stops_reading_and_leaves_stops_the_worker(make_mill: MakeMill) -> None:
    mill = await make_mill(
        a_script(text=200 * "w", tokens=80_000, tokens_per_second=2000), slow_consumer_seconds=600
    )
    with socket.create_connection(("127.0.0.1", mill.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(raw_post(mill, stream=True))

        async def stuck() -> bool:
            (live,) = mill.running.streams._live.values() or (None,)
            return live is not None and sum(p.shown < len(p.text) for p in live.parts.values()) > 0

        await until(stuck, 30)

        async def running() -> bool:  # the claim is written apart from the text
            return await states(mill) == ["running"]

        await until(running, 30)

    async def cancelled() -> bool:
        return await states(mill) == ["cancelled"]

    await until(cancelled, 30)
    await mill.idle()
