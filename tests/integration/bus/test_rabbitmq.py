"""What only a real broker can do to us."""

import asyncio
import json
import random
import urllib.request
from collections.abc import AsyncIterator
from urllib.parse import quote, urlsplit

import aio_pika
import pytest

from bus.protocol import BusError, BusUnavailable, Delivery, Depth, PublishUnknown, QueueFull
from bus.rabbitmq import RabbitBus, connect
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.tcp_proxy import TcpProxy
from queue_schemas import topology
from queue_schemas.codec import KeyRing, encode
from queue_schemas.messages import Notice
from queue_schemas.topology import DEAD, RESULTS, WORKERS, Queue
from tests.integration.bus.world import Inbox, depth_is, eventually, impatient

WORK = Queue("work", max_length=1000, dead_letter_to=DEAD.name, delivery_limit=3)


@pytest.fixture
async def bus(rabbitmq_url: str) -> AsyncIterator[RabbitBus]:
    bus = await connect(rabbitmq_url, name="test")
    await bus.declare([*topology.SHARED, WORK])
    yield bus
    await bus.aclose()


async def publishes_again(bus: RabbitBus, queue: str, body: bytes) -> None:
    async def published() -> bool:
        try:
            await bus.publish(queue, body)
        except (BusUnavailable, PublishUnknown, QueueFull):  # a recovering queue refuses for a bit
            return False
        return True

    await eventually(published, within_seconds=30)


async def acknowledge(delivery: Delivery) -> None:
    await delivery.ack()


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_consumers_and_publishers_come_back_after_the_broker_did(
    local_rabbitmq: LocalRabbit, bus: RabbitBus, how: str
) -> None:
    shared, tokens = Inbox(), Inbox()
    queue = topology.tokens("master-1")
    await bus.consume(RESULTS, shared, prefetch=10)
    await bus.consume(queue, tokens, prefetch=10)
    await bus.publish(WORK.name, b"stored before")
    if how == "kill":
        # RabbitMQ 3.10 writes the name of a new queue to disk half a second later, and empties
        # the queue if it is killed before that.
        await asyncio.sleep(3)
        await asyncio.to_thread(local_rabbitmq.kill)
        with pytest.raises((BusUnavailable, PublishUnknown)):
            await bus.publish(RESULTS.name, b"nobody there")
        await asyncio.to_thread(local_rabbitmq.start)
    else:
        await asyncio.to_thread(local_rabbitmq.restart)
    await publishes_again(bus, RESULTS.name, b"after")
    await shared.wait(1, within_seconds=30)
    await depth_is(bus, WORK.name, 1)

    async def streams() -> bool:
        await bus.stream(queue.name, b"token")
        return bool(tokens.deliveries)

    await eventually(streams, within_seconds=30)


async def test_a_frozen_broker_leaves_publishes_unknown_and_streams_unblocked(
    local_rabbitmq: LocalRabbit, bus: RabbitBus
) -> None:
    local_rabbitmq.freeze()
    try:
        with impatient(bus), pytest.raises(PublishUnknown):
            await bus.publish(WORK.name, b"grain")
        async with asyncio.timeout(60):
            for _ in range(30_000):
                await bus.stream("tokens.nobody", b"x" * 1000)
    finally:
        local_rabbitmq.thaw()
    await publishes_again(bus, WORK.name, b"again")
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=100)

    async def both_are_there() -> bool:  # one of them twice, if a confirm was not heard
        return set(inbox.bodies) == {b"grain", b"again"}

    await eventually(both_are_there)


@pytest.mark.parametrize(
    ("limit", "alarming", "usual"),
    [
        ("set_vm_memory_high_watermark", "0.00001", "0.6"),
        ("set_disk_free_limit", "1000000GB", "50MB"),
    ],
    ids=["memory", "disk"],
)
async def test_an_alarm_of_the_broker_stops_publishes_and_not_acknowledgements(
    local_rabbitmq: LocalRabbit, bus: RabbitBus, limit: str, alarming: str, usual: str
) -> None:
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=1)
    await bus.publish(WORK.name, b"first")
    await bus.publish(WORK.name, b"second")
    (first,) = await inbox.wait(1)
    await asyncio.to_thread(local_rabbitmq.rabbitmqctl, limit, alarming)
    try:
        with impatient(bus), pytest.raises(PublishUnknown):
            await bus.publish(WORK.name, b"during")
        await first.ack()
        await inbox.wait(2)
    finally:
        await asyncio.to_thread(local_rabbitmq.rabbitmqctl, limit, usual)
    await inbox.deliveries[1].ack()
    await inbox.wait(3)
    assert inbox.bodies[2] == b"during", "what is unknown may well be stored"


async def test_a_deleted_queue_is_declared_and_consumed_again(
    rabbitmq_url: str, bus: RabbitBus
) -> None:
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=1)
    async with await aio_pika.connect(rabbitmq_url) as operator:
        channel = await operator.channel()
        await channel.queue_delete(WORK.name)

    async def arrives() -> bool:
        try:
            await bus.publish(WORK.name, b"grain")
        except BusError:
            return False
        return bool(inbox.deliveries)

    await eventually(arrives)


async def test_one_queue_that_cannot_be_had_stops_nobody_else(rabbitmq_url: str) -> None:
    parts = urlsplit(rabbitmq_url)
    async with TcpProxy(parts.hostname or "", parts.port or 5672) as proxy:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}"
        bus = await connect(parts._replace(netloc=netloc).geturl(), name="test")
        await bus.declare([DEAD, RESULTS])
        sick, well = Inbox(), Inbox()
        control = topology.control("w1")
        await bus.consume(control, sick, prefetch=1)
        await bus.consume(RESULTS, well, prefetch=1)
        proxy.hold()
        proxy.cut()
        async with await aio_pika.connect(rabbitmq_url) as operator:

            async def taken() -> bool:
                channel = await operator.channel()
                try:
                    await channel.declare_queue(control.name, durable=True)
                except aio_pika.exceptions.ChannelClosed:
                    return False  # the broker has not noticed yet that its owner is gone
                return True

            await eventually(taken)
            proxy.release()
            await publishes_again(bus, RESULTS.name, b"grain")
            await well.wait(1)
            await (await operator.channel()).queue_delete(control.name)

        async def resumed() -> bool:
            await bus.broadcast(b"cancel")
            return bool(sick.deliveries)

        await eventually(resumed)
        await bus.aclose()


async def test_closing_does_not_wait_for_a_frozen_broker(
    local_rabbitmq: LocalRabbit, bus: RabbitBus
) -> None:
    await bus.consume(WORK, Inbox(), prefetch=1)
    local_rabbitmq.freeze()
    try:
        async with asyncio.timeout(30):  # it is frozen until then
            await bus.aclose()
    finally:
        local_rabbitmq.thaw()


async def test_messages_are_persistent_with_short_plain_headers(
    rabbitmq_url: str, bus: RabbitBus
) -> None:
    body, headers = encode(
        Notice(request="00000000-0000-0000-0000-000000000001"), KeyRing.parse("a long enough key")
    )
    for _ in range(2):
        await bus.publish(WORKERS.name, body, headers, correlation_id="request-1")
    async with await aio_pika.connect(rabbitmq_url) as reader:
        queue = await (await reader.channel()).get_queue(WORKERS.name)
        messages = [await queue.get(no_ack=True) for _ in range(2)]
    assert len({message.message_id for message in messages}) == 2
    for message in messages:
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert message.correlation_id == "request-1"
        assert message.headers
        for value in message.headers.values():
            assert isinstance(value, str | int)
            assert len(str(value)) < 4096


async def test_impossible_messages_fail_alone(bus: RabbitBus) -> None:
    outcomes = await asyncio.gather(
        bus.publish("modèle", b"grain"),
        bus.publish("q" * 300, b"grain"),
        bus.publish(WORK.name, b"grain", correlation_id="c" * 300),
        bus.publish(WORK.name, b"grain"),
        return_exceptions=True,
    )
    assert [isinstance(outcome, BusError) for outcome in outcomes] == [True, True, True, False]


async def test_connections_carry_the_name_of_their_process_and_role(
    local_rabbitmq: LocalRabbit, bus: RabbitBus
) -> None:
    def names() -> set[str]:
        listed = local_rabbitmq.rabbitmqctl("list_connections", "client_properties")
        return {role for role in ("publish", "consume", "stream") if f"test {role}" in listed}

    assert await asyncio.to_thread(names) == {"publish", "consume", "stream"}


async def test_a_refused_connection_says_what_to_do() -> None:
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1 .*is it running") as caught:
        await connect("amqp://guest:s3cret@127.0.0.1:1/", name="test")
    assert "s3cret" not in str(caught.value)


async def test_a_wrong_password_says_what_to_do(rabbitmq_url: str) -> None:
    wrong = rabbitmq_url.replace(":guest@", ":s3cret@")
    with pytest.raises(BusUnavailable, match="refused the login of 'guest'") as caught:
        await connect(wrong, name="test")
    assert "s3cret" not in str(caught.value)


async def test_a_missing_virtual_host_says_what_to_do(rabbitmq_url: str) -> None:
    with pytest.raises(BusUnavailable, match=r"virtual host 'nowhere'.*add_vhost"):
        await connect(urlsplit(rabbitmq_url)._replace(path="/nowhere").geturl(), name="test")


@pytest.mark.parametrize("url", ["", "localhost:5672", "http://localhost/", "amqp://h:port/"])
async def test_a_url_that_is_none_is_a_clear_error(url: str) -> None:
    with pytest.raises(BusUnavailable, match="not a RabbitMQ URL"):
        await connect(url, name="test")


async def test_the_bus_leaves_no_channel_behind(
    local_rabbitmq: LocalRabbit, rabbitmq_url: str, bus: RabbitBus
) -> None:
    for _ in range(5):
        await (await bus.consume(WORK, acknowledge, prefetch=1)).cancel()
        await bus.depth(WORK.name)
        await bus.depth("nowhere")
    vhost = quote(urlsplit(rabbitmq_url).path.removeprefix("/"), safe="")
    api = urlsplit(f"{local_rabbitmq.management_url}/api/vhosts/{vhost}/channels")

    def count() -> int:
        opener = urllib.request.build_opener(_basic_auth(api.geturl()))
        with opener.open(f"http://{api.hostname}:{api.port}{api.path}") as answer:
            return len(json.load(answer))

    async def only_the_senders() -> bool:
        return await asyncio.to_thread(count) == 2

    await eventually(only_the_senders, within_seconds=60)


def _basic_auth(url: str) -> urllib.request.HTTPBasicAuthHandler:
    parts = urlsplit(url)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    place = f"http://{parts.hostname}:{parts.port}/"
    passwords.add_password(None, place, parts.username or "", parts.password or "")
    return urllib.request.HTTPBasicAuthHandler(passwords)


async def test_who_asks_for_a_depth_can_be_cancelled_at_any_moment(bus: RabbitBus) -> None:
    """A missing queue closes its channel, just when a cancellation may come as well."""
    results = Inbox()
    await bus.consume(RESULTS, results, prefetch=10)

    async def ask(queue: str) -> None:
        while True:
            await bus.depth(queue)

    dice = random.Random(1)
    for _ in range(25):
        asking = [asyncio.create_task(ask(queue)) for queue in ["nobody", RESULTS.name] * 4]
        await asyncio.sleep(dice.uniform(0.0, 0.05))
        for task in asking:
            task.cancel()
        _, pending = await asyncio.wait(asking, timeout=30)
        assert not pending, "a cancellation was lost"
        assert all(task.cancelled() for task in asking), "the connection was lost with a channel"
    await bus.publish(RESULTS.name, b"still there")
    await results.wait(1)


async def test_a_queue_that_does_not_answer_holds_up_no_other(
    bus: RabbitBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, hangs = bus._ask_depth, asyncio.Event()

    async def answer(queue: str) -> Depth | None:
        if queue == "ill":
            await hangs.wait()
        return await ask(queue)

    monkeypatch.setattr(bus, "_ask_depth", answer)
    monkeypatch.setattr("bus.rabbitmq.CONNECT_SECONDS", 60)
    monkeypatch.setattr("bus.rabbitmq._HANGS_SECONDS", 0.1)
    ill = [asyncio.create_task(bus.depth("ill")) for _ in range(2)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        assert await bus.depth(RESULTS.name) is not None
        assert await bus.depth("nobody") is None
    assert not any(asking.done() for asking in ill)
    hangs.set()
    assert await asyncio.gather(*ill) == [None, None]
