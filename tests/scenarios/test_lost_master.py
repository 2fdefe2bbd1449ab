"""A master is killed around the commit of a request; its client asks again (B01, B02, B32)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx2
import pytest

from millrace.chaos.stack import Stack, until
from millrace.chaos.tcp_proxy import TcpProxy
from tests.scenarios.conftest import MakeStack
from tests.scenarios.load import (
    MODEL,
    NUMBERED,
    PATIENT,
    nothing_was_lost_or_applied_twice,
    query,
    queues_drain,
)

BODY = {"model": "mill", "messages": [{"role": "user", "content": "flour"}]}
KEYED = {"Idempotency-Key": "once"}


async def ask(stack: Stack, url: str) -> httpx2.Response:
    async with stack.http(url) as http:
        return await http.post("/v1/chat/completions", json=BODY, headers=KEYED)


async def ask_again(stack: Stack, url: str) -> None:
    """The client that heard nothing repeats itself, and there is one request with its answer."""
    answer = await ask(stack, url)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == f"flour {NUMBERED}"
    assert len(await query(stack, "SELECT 1 FROM millrace.requests")) == 1
    assert len(await query(stack, "SELECT 1 FROM millrace.attempts")) == 1
    await nothing_was_lost_or_applied_twice(stack, 1)
    await queues_drain(stack, consumers=1)


@contextlib.asynccontextmanager
async def inserts_held_up(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    """A request that is being stored comes no further, for as long as the block runs."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        for statement in WAIT_HERE:
            await connection.execute(statement)
        await connection.execute("SELECT pg_advisory_lock(46)")
        yield connection
    finally:
        await connection.close()


WAIT_HERE = (
    """CREATE FUNCTION millrace.wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN PERFORM pg_advisory_xact_lock(46); RETURN NEW; END $$""",
    """CREATE TRIGGER wait_here BEFORE INSERT ON millrace.requests
       FOR EACH ROW EXECUTE FUNCTION millrace.wait_here()""",
)
WAITING = """SELECT pid FROM pg_stat_activity
              WHERE wait_event = 'advisory' AND datname = current_database()"""


@pytest.mark.parametrize("commits", [False, True], ids=["it never commits", "it commits alone"])
async def test_a_master_that_dies_before_it_knows_of_its_commit_leaves_one_request_or_none(
    make_stack: MakeStack, commits: bool
) -> None:
    stack = make_stack(MODEL, **PATIENT)
    await stack.start(masters=2, mill=1)
    one, other = stack.masters
    async with inserts_held_up(stack) as connection:
        asking = asyncio.create_task(ask(stack, one.url))

        async def writes() -> int | None:
            pid: int | None = await connection.fetchval(WAITING)
            return pid

        pid = await until(writes, 60)
        one.kill()
        with pytest.raises(httpx2.TransportError):
            await asking
        if not commits:
            # And waits for its end: the lock is given away with this block.
            assert await connection.fetchval("SELECT pg_terminate_backend($1, 60000)", pid)
    if commits:  # the statement had been sent, and nobody was left to hear what became of it

        async def stored() -> bool:
            return bool(await query(stack, "SELECT 1 FROM millrace.requests"))

        await until(stored, 60)
    else:
        assert await query(stack, "SELECT 1 FROM millrace.requests") == []
    await ask_again(stack, other.url)


async def test_a_master_that_dies_between_commit_and_publish_leaves_the_rest_to_another(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(MODEL, **PATIENT)
    direct = stack.rabbitmq_url
    parts = urlsplit(direct)
    stack.worker_rabbitmq_url = direct
    async with TcpProxy(parts.hostname or "", parts.port or 5672) as link:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{link.port}"
        stack.rabbitmq_url = urlunsplit(parts._replace(netloc=netloc))
        await stack.start(mill=1)
        [master] = stack.masters
        link.hold()
        asking = asyncio.create_task(ask(stack, master.url))

        async def committed() -> bool:
            return bool(await query(stack, "SELECT 1 FROM millrace.outbox"))

        await until(committed, 60)
        master.kill()
        with pytest.raises(httpx2.TransportError):
            await asking
        link.cut()
    stack.rabbitmq_url = direct
    reborn = stack.start_master()
    await stack.ready(reborn)
    await ask_again(stack, reborn.url)
