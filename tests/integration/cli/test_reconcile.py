import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from db import outbox, subtasks
from millrace.chaos.stack import until
from queue_schemas import topology
from queue_schemas.codec import encode
from tests.doubles.subtasks import a_subtask
from tests.integration.cli.command_line import millrace
from tests.integration.cli.ledger import Books, write

QUEUE = topology.subtasks("mill")


async def queued(books: Books) -> UUID:
    """A subtask whose message the broker has confirmed."""
    _, subtask = await books.request()
    await subtasks.mark_queued(books.connection, [(subtask, 1)])
    await outbox.forget_sent(books.connection, [(subtask, 1)])
    return subtask


@pytest.fixture
def reconcile(migrated_url: str, rabbitmq_url: str, tmp_path: Path) -> Any:
    (tmp_path / "models.yaml").write_text("models:\n- {name: mill, provider: scripted}\n")
    settings = {
        "DATABASE_URL": migrated_url,
        "RABBITMQ_URL": rabbitmq_url,
        "MILLRACE_MODELS": str(tmp_path / "models.yaml"),
    }

    async def run(*arguments: str) -> tuple[int, str]:
        done = await asyncio.to_thread(millrace, "reconcile", *arguments, **settings)
        assert done.stderr == ""
        assert "--json" in arguments or max(map(len, done.stdout.splitlines())) <= 80
        return done.returncode, done.stdout

    return run


async def test_a_broker_without_anything_is_set_up_and_given_its_work(
    migrated_url: str, rabbitmq_url: str, reconcile: Any
) -> None:
    [subtask] = await write(migrated_url, queued)
    code, said = await reconcile()
    assert code == 1
    assert "no queue" in said
    assert "missing message" in said
    assert str(subtask)[:8] in said
    assert "--fix mends them." in said
    code, said = await reconcile("--fix")
    assert code == 0
    assert "Database and broker agree now." in said
    code, said = await reconcile("--json")
    assert (code, json.loads(said)["agrees"]) == (0, True)
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        for queue in (*topology.SHARED, QUEUE):
            await channel.declare_queue(queue.name, passive=True)


async def test_messages_of_a_quorum_queue_are_looked_at_without_losing_one(
    migrated_url: str, rabbitmq_url: str, reconcile: Any
) -> None:
    assert (await reconcile("--fix"))[0] == 0
    [kept] = await write(migrated_url, queued)
    bodies = [encode(a_subtask(subtask=kept))[0]] * 2 + [b"gibberish"]
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        for body in bodies:
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=QUEUE.name)
        for _ in range(2):
            code, said = await reconcile("--peek", "10", "--json")
            kinds = [(f["kind"], f["count"]) for f in json.loads(said)["findings"]]
            assert (code, kinds) == (1, [("duplicate message", 1), ("unreadable message", 1)])
        code, said = await reconcile("--peek", "10", "--fix", "--json")
        assert code == 0, said
        queue = await channel.declare_queue(QUEUE.name, passive=True)

        async def left() -> AbstractIncomingMessage | None:  # given back a moment later
            return await queue.get(timeout=60, fail=False)

        assert (await until(left, 60)).body == bodies[0]
        aside = await channel.declare_queue("quarantine", passive=True)
        assert aside.declaration_result.message_count == 1
