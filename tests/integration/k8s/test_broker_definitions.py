"""The rendered definitions on a real RabbitMQ: every user can do its work, and no more."""

import asyncio
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import aio_pika
import httpx2
import pytest
from aio_pika.exceptions import ChannelClosed
from aiormq.exceptions import ChannelAccessRefused

from bus import rabbitmq
from bus.protocol import Delivery
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.k8s.definitions import CELERY_VHOST, MILLRACE_VHOST, USERS, definitions
from queue_schemas import topology
from queue_schemas.registry import Model, ProviderName

SMALL = Model(name="small", provider=ProviderName.SCRIPTED)
EMBEDS = Model(name="vectors", provider=ProviderName.OLLAMA, capabilities=frozenset({"embedding"}))
SUBTASKS = topology.subtasks(SMALL.slug)
PASSWORDS = {user: f"secret-of-{user}" for user in USERS}


class Broker:
    """A broker with the definitions imported, as each of its users sees it."""

    def __init__(self, local: LocalRabbit) -> None:
        self.local = local

    def url(self, user: str, vhost: str = MILLRACE_VHOST) -> str:
        return f"amqp://{user}:{PASSWORDS[user]}@127.0.0.1:{self.local.port}/{vhost}"

    def http(self, user: str) -> httpx2.Client:
        return self._client((user, PASSWORDS[user]))

    def _client(self, login: tuple[str, str]) -> httpx2.Client:
        port = urlsplit(self.local.management_url).port
        base = f"http://127.0.0.1:{port}/api"
        return httpx2.Client(base_url=base, auth=login, trust_env=False, timeout=30)

    def load(self) -> None:
        made = definitions(PASSWORDS, [SMALL, EMBEDS])
        with self._client(("guest", "guest")) as guest:
            for _ in range(2):  # a broker imports them at every start
                guest.post("/definitions", json=json.loads(made)).raise_for_status()

    def forget(self) -> None:
        for vhost in (MILLRACE_VHOST, CELERY_VHOST):
            self.local.delete_vhost(vhost)
        with self._client(("guest", "guest")) as guest:
            for user in USERS:
                guest.delete(f"/users/{user}").raise_for_status()


@pytest.fixture(scope="module")
def broker(local_rabbitmq: LocalRabbit) -> Iterator[Broker]:
    broker = Broker(local_rabbitmq)
    broker.load()
    yield broker
    broker.forget()


async def refused(url: str, queue: str) -> bool:
    """Whether this user may not take messages from the queue."""
    connection = await aio_pika.connect(url)
    try:
        channel = await connection.channel()
        found = await channel.declare_queue(queue, passive=True)
        await found.get(fail=False)
    except ChannelAccessRefused:
        return True
    finally:
        await connection.close()
    return False


async def test_queues_are_there_before_anybody_declares_them(broker: Broker) -> None:
    with broker.http("master") as http:
        found = {queue["name"]: queue for queue in http.get("/queues/millrace").json()}
    wanted = [*topology.SHARED, SUBTASKS]
    for queue in wanted:
        assert found[queue.name]["arguments"] == queue.arguments()


async def test_master_and_worker_carry_a_subtask_through(broker: Broker) -> None:
    master = await rabbitmq.connect(broker.url("master"), name="master")
    worker = await rabbitmq.connect(broker.url("worker"), name="worker")
    results: asyncio.Queue[bytes] = asyncio.Queue()
    tokens: asyncio.Queue[bytes] = asyncio.Queue()
    orders: asyncio.Queue[bytes] = asyncio.Queue()

    async def work(delivery: Delivery) -> None:
        await worker.stream("tokens.m", b"token")
        await worker.stream(topology.WORKERS.name, b"heartbeat")
        await worker.publish(topology.RESULTS.name, b"result of " + delivery.body)
        await worker.publish(topology.QUARANTINE.name, b"unreadable")
        await delivery.ack()

    def into(queue: asyncio.Queue[bytes]):  # type: ignore[no-untyped-def]  # a handler
        async def handler(delivery: Delivery) -> None:
            queue.put_nowait(delivery.body)
            await delivery.ack()

        return handler

    try:
        await master.declare([*topology.SHARED, SUBTASKS])
        await master.consume(topology.RESULTS, into(results), prefetch=1)
        await master.consume(topology.tokens("m"), into(tokens), prefetch=1)
        new_model = topology.subtasks("new")  # of an entry that came after the definitions
        await worker.declare([*topology.SHARED, SUBTASKS, new_model])
        await worker.consume(topology.control("w"), into(orders), prefetch=1)
        await worker.consume(SUBTASKS, work, prefetch=1)
        await master.publish(SUBTASKS.name, b"subtask")
        async with asyncio.timeout(60):
            assert await results.get() == b"result of subtask"
            assert await tokens.get() == b"token"
            while orders.empty():
                await master.broadcast(b"cancel")
                await asyncio.sleep(0.05)
    finally:
        await worker.aclose()
        await master.aclose()


async def test_a_worker_reads_nobodys_results(broker: Broker) -> None:
    others = (topology.RESULTS, topology.DEAD, topology.QUARANTINE, topology.FEEDBACK)
    for queue in others:
        assert await refused(broker.url("worker"), queue.name)
    assert not await refused(broker.url("worker"), SUBTASKS.name)


async def test_n8n_takes_events_and_no_subtasks(broker: Broker) -> None:
    n8n = await rabbitmq.connect(broker.url("n8n"), name="n8n")
    events: asyncio.Queue[bytes] = asyncio.Queue()

    async def note(delivery: Delivery) -> None:
        events.put_nowait(delivery.body)
        await delivery.ack()

    master = await rabbitmq.connect(broker.url("master"), name="master")
    try:
        await n8n.declare([*topology.SHARED, topology.N8N])
        await n8n.consume(topology.N8N, note, prefetch=1)
        await n8n.publish(topology.FEEDBACK.name, b"a note")
        async with asyncio.timeout(60):
            while events.empty():
                await master.emit("request.completed", b"event")
                await asyncio.sleep(0.05)
    finally:
        await master.aclose()
        await n8n.aclose()
    assert await refused(broker.url("n8n"), SUBTASKS.name)
    assert await refused(broker.url("n8n"), topology.RESULTS.name)


def test_keda_sees_how_long_a_queue_is_and_no_more(broker: Broker) -> None:
    with broker.http("keda") as http:
        deadline = time.monotonic() + 60  # the broker counts every five seconds
        while "messages" not in http.get(f"/queues/millrace/{SUBTASKS.name}").json():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert http.get("/queues/celery").is_error
        assert http.get("/users").is_error
        message = {"routing_key": SUBTASKS.name, "payload": "x", "payload_encoding": "string"}
        message |= {"properties": {}}
        assert http.post("/exchanges/millrace/amq.default/publish", json=message).is_error
        assert http.delete(f"/queues/millrace/{SUBTASKS.name}/contents").is_error
        assert http.put("/queues/millrace/more", json={}).is_error


async def test_keda_takes_and_puts_nothing(broker: Broker) -> None:
    assert await refused(broker.url("keda"), SUBTASKS.name)
    connection = await aio_pika.connect(broker.url("keda"))
    channel = await connection.channel()
    with pytest.raises(ChannelClosed):
        await channel.default_exchange.publish(aio_pika.Message(b"x"), SUBTASKS.name)
    await connection.close()


async def test_celery_owns_its_vhost_and_enters_no_other(broker: Broker) -> None:
    connection = await aio_pika.connect(broker.url("celery", CELERY_VHOST))
    channel = await connection.channel()
    queue = await channel.declare_queue("ingest", durable=True)
    await channel.default_exchange.publish(aio_pika.Message(b"task"), "ingest")
    assert (await queue.get(timeout=60)).body == b"task"
    await connection.close()
    with pytest.raises(aio_pika.exceptions.AMQPError):
        await aio_pika.connect(broker.url("celery", MILLRACE_VHOST))


async def test_the_administrator_sees_both(broker: Broker) -> None:
    with broker.http("admin") as http:
        vhosts = {vhost["name"] for vhost in http.get("/vhosts").raise_for_status().json()}
    assert {MILLRACE_VHOST, CELERY_VHOST} <= vhosts
