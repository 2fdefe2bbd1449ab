"""What `bus/protocol.py` promises, of every implementation."""

import asyncio
from collections import Counter

import pytest

from bus.protocol import (
    Bus,
    BusError,
    BusUnavailable,
    Delivery,
    PublishUnknown,
    QueueFull,
    Unroutable,
    quarantine,
)
from queue_schemas import topology
from queue_schemas.topology import DEAD, QUARANTINE, Queue
from tests.integration.bus.world import Inbox, World, depth_is, eventually

WORK = Queue("work", max_length=1000, dead_letter_to=DEAD.name, delivery_limit=3)


@pytest.fixture(autouse=True)
async def queues(bus: Bus) -> None:
    await bus.declare([*topology.SHARED, WORK])


async def test_a_published_message_arrives_with_its_headers(bus: Bus) -> None:
    await bus.publish(WORK.name, b"grain", {"kind": "rye"}, correlation_id="request-1")
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=1)
    (delivery,) = await inbox.wait(1)
    assert (delivery.queue, delivery.body) == ("work", b"grain")
    assert delivery.headers == {"kind": "rye"}
    assert delivery.delivery_count == 0


@pytest.mark.parametrize("size", [0, 1, 300_000])
async def test_bodies_of_any_size_come_through_whole(bus: Bus, size: int) -> None:
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=1)
    body = bytes(i % 251 for i in range(size))
    await bus.publish(WORK.name, body)
    assert [d.body for d in await inbox.wait(1)] == [body]


async def test_many_concurrent_publishes_are_each_stored_once(bus: Bus) -> None:
    await asyncio.gather(*(bus.publish(WORK.name, str(i).encode()) for i in range(300)))
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=300)
    await inbox.wait(300)
    assert Counter(inbox.bodies) == Counter(str(i).encode() for i in range(300))


async def test_publishing_to_a_missing_queue_is_unroutable(bus: Bus) -> None:
    with pytest.raises(Unroutable, match="nowhere"):
        await bus.publish("nowhere", b"grain")


async def test_an_unroutable_publish_does_not_hurt_its_neighbours(bus: Bus) -> None:
    outcomes = await asyncio.gather(
        *(bus.publish(WORK.name if i % 2 else "nowhere", b"x") for i in range(40)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Unroutable, type(None)] * 20
    await depth_is(bus, WORK.name, 20)


async def test_a_full_queue_refuses(bus: Bus) -> None:
    small = Queue("small", max_length=2)
    await bus.declare([small])

    # A quorum queue notices a little late that it is full, so go to its limit and well beyond.
    async def overfill() -> None:
        for _ in range(50):
            await bus.publish(small.name, b"grain")

    with pytest.raises(QueueFull, match="small"):
        await overfill()
    depth = await bus.depth(small.name)
    assert depth is not None
    assert 2 <= depth.ready < 50


async def test_a_lost_confirm_leaves_the_outcome_unknown(world: World, bus: Bus) -> None:
    world.lose_confirms(bus)
    with pytest.raises(PublishUnknown):
        await bus.publish(WORK.name, b"grain")
    world.restore_confirms(bus)
    await depth_is(bus, WORK.name, 1)
    await bus.publish(WORK.name, b"more")
    await depth_is(bus, WORK.name, 2)


async def test_an_acknowledged_message_is_gone(world: World, bus: Bus) -> None:
    other = await world.connect()
    inbox = Inbox()
    await other.consume(WORK, inbox, prefetch=5)
    await bus.publish(WORK.name, b"grain")
    (delivery,) = await inbox.wait(1)
    await delivery.ack()
    await bus.publish(WORK.name, b"second")  # whose delivery shows that the ack went before
    await inbox.wait(2)
    await other.aclose()
    again = Inbox()
    await bus.consume(WORK, again, prefetch=5)
    assert [d.body for d in await again.wait(1)] == [b"second"]


async def test_each_retry_counts_one_delivery(bus: Bus) -> None:
    counts: list[int] = []
    done = asyncio.Event()

    async def retry_twice(delivery: Delivery) -> None:
        counts.append(delivery.delivery_count)
        if len(counts) < 3:
            await delivery.retry()
        else:
            await delivery.ack()
            done.set()

    await bus.consume(WORK, retry_twice, prefetch=1)
    await bus.publish(WORK.name, b"grain")
    await asyncio.wait_for(done.wait(), 30)
    assert counts == [0, 1, 2]


async def test_a_rejected_message_is_dead_lettered(bus: Bus) -> None:
    inbox, dead = Inbox(), Inbox()
    await bus.consume(WORK, inbox, prefetch=1)
    await bus.consume(DEAD, dead, prefetch=1)
    await bus.publish(WORK.name, b"grain", {"kind": "rye"})
    (delivery,) = await inbox.wait(1)
    await delivery.reject()
    (buried,) = await dead.wait(1)
    assert buried.body == b"grain"
    assert buried.headers["kind"] == "rye"


async def test_the_delivery_limit_ends_in_the_dead_letters(bus: Bus) -> None:
    counts: list[int] = []

    async def always_retry(delivery: Delivery) -> None:
        counts.append(delivery.delivery_count)
        await delivery.retry()

    dead = Inbox()
    await bus.consume(WORK, always_retry, prefetch=1)
    await bus.consume(DEAD, dead, prefetch=1)
    await bus.publish(WORK.name, b"poison")
    await dead.wait(1)
    assert counts == [0, 1, 2, 3]


async def test_a_handler_that_raises_has_its_delivery_retried(bus: Bus) -> None:
    counts: list[int] = []
    done = asyncio.Event()

    async def fail_once(delivery: Delivery) -> None:
        counts.append(delivery.delivery_count)
        if delivery.delivery_count == 0:
            raise LookupError("the first time")
        await delivery.ack()
        done.set()

    await bus.consume(WORK, fail_once, prefetch=1)
    await bus.publish(WORK.name, b"grain")
    await asyncio.wait_for(done.wait(), 30)
    assert counts == [0, 1]


async def test_a_handler_may_raise_after_it_settled(bus: Bus) -> None:
    bodies: list[bytes] = []
    done = asyncio.Event()

    async def settle_and_fail(delivery: Delivery) -> None:
        bodies.append(delivery.body)
        await delivery.ack()
        if delivery.body == b"last":
            done.set()
        raise LookupError("too late")

    await bus.consume(WORK, settle_and_fail, prefetch=1)
    await bus.publish(WORK.name, b"first")
    await bus.publish(WORK.name, b"last")
    await asyncio.wait_for(done.wait(), 30)
    assert bodies == [b"first", b"last"]


async def test_settling_twice_is_an_error(bus: Bus) -> None:
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=1)
    await bus.publish(WORK.name, b"grain")
    (delivery,) = await inbox.wait(1)
    await delivery.ack()
    with pytest.raises(BusError, match="twice"):
        await delivery.retry()
    await bus.publish(WORK.name, b"next")  # the channel took no harm
    await inbox.wait(2)


async def test_closing_hands_unsettled_messages_to_others(world: World, bus: Bus) -> None:
    dying = await world.connect()
    first, second = Inbox(), Inbox()
    await dying.consume(WORK, first, prefetch=2)
    await bus.publish(WORK.name, b"a")
    await bus.publish(WORK.name, b"b")
    await first.wait(2)
    await bus.consume(WORK, second, prefetch=2)
    await dying.aclose()
    deliveries = await second.wait(2)
    assert {d.body for d in deliveries} == {b"a", b"b"}
    assert [d.delivery_count for d in deliveries] == [1, 1]


async def test_a_lost_connection_cancels_handlers_and_redelivers(world: World, bus: Bus) -> None:
    dying = await world.connect()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: Delivery) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    await dying.consume(WORK, hang, prefetch=1)
    await bus.publish(WORK.name, b"grain")
    await asyncio.wait_for(started.wait(), 30)
    others = Inbox()
    await bus.consume(WORK, others, prefetch=1)
    await world.break_connection(dying)
    await asyncio.wait_for(cancelled.wait(), 30)
    (delivery,) = await others.wait(1)
    assert (delivery.body, delivery.delivery_count) == (b"grain", 1)


async def test_settling_after_the_connection_was_lost_does_nothing(world: World, bus: Bus) -> None:
    dying = await world.connect()
    stale, fresh = Inbox(), Inbox()
    await dying.consume(WORK, stale, prefetch=1)
    await bus.publish(WORK.name, b"grain")
    (delivery,) = await stale.wait(1)
    await bus.consume(WORK, fresh, prefetch=1)
    await world.break_connection(dying)
    (again,) = await fresh.wait(1)
    await delivery.ack()
    await again.retry()
    assert [d.delivery_count for d in await fresh.wait(2)] == [1, 2]


async def test_after_a_lost_connection_everything_resumes(world: World, bus: Bus) -> None:
    shared, tokens, events = Inbox(), Inbox(), Inbox()
    queue = topology.tokens("master-1")
    await bus.consume(WORK, shared, prefetch=10)
    await bus.consume(queue, tokens, prefetch=10)
    await bus.watch(topology.watcher("console"), "#", events)
    await world.break_connection(bus)

    async def publishes() -> bool:
        try:
            await bus.publish(WORK.name, b"grain")
        except (BusUnavailable, PublishUnknown):
            return False
        return True

    async def all_arrive() -> bool:
        await bus.stream(queue.name, b"token")
        await bus.emit("request.completed", b"event")
        return bool(tokens.deliveries and events.deliveries)

    await eventually(publishes)
    await shared.wait(1)
    await eventually(all_arrive)


async def test_prefetch_bounds_what_a_consumer_holds(bus: Bus) -> None:
    inbox = Inbox()
    await bus.consume(WORK, inbox, prefetch=2)
    for i in range(5):
        await bus.publish(WORK.name, str(i).encode())
    held = await inbox.wait(2)
    await depth_is(bus, WORK.name, 3)
    assert len(inbox.deliveries) == 2
    await held[0].ack()
    await inbox.wait(3)
    await depth_is(bus, WORK.name, 2)


async def test_consumers_share_the_work(world: World, bus: Bus) -> None:
    other = await world.connect()
    mine, theirs = Inbox(), Inbox()
    await bus.consume(WORK, mine, prefetch=1)
    await other.consume(WORK, theirs, prefetch=1)
    await bus.publish(WORK.name, b"a")
    await bus.publish(WORK.name, b"b")
    await mine.wait(1)
    await theirs.wait(1)
    assert {*mine.bodies, *theirs.bodies} == {b"a", b"b"}


async def test_a_cancelled_consumer_can_settle_what_it_holds(bus: Bus) -> None:
    inbox = Inbox()
    consumer = await bus.consume(WORK, inbox, prefetch=2)
    await bus.publish(WORK.name, b"done")
    await bus.publish(WORK.name, b"not done")
    by_body = {d.body: d for d in await inbox.wait(2)}
    await consumer.cancel()
    await consumer.cancel()
    await bus.publish(WORK.name, b"new")
    await depth_is(bus, WORK.name, 1)
    await by_body[b"done"].ack()
    await by_body[b"not done"].retry()
    await depth_is(bus, WORK.name, 2)
    assert len(inbox.deliveries) == 2
    depth = await bus.depth(WORK.name)
    assert depth is not None
    assert depth.consumers == 0


async def test_a_consumer_knows_whether_messages_can_come(world: World, bus: Bus) -> None:
    stays, goes = [await bus.consume(WORK, Inbox(), prefetch=1) for _ in range(2)]
    assert stays.active
    assert goes.active
    await goes.cancel()
    assert not goes.active
    await world.break_connection(bus)

    async def is_back() -> bool:
        return stays.active

    await eventually(is_back)
    assert not goes.active
    await bus.aclose()
    assert not stays.active


async def test_a_broadcast_reaches_every_worker(world: World, bus: Bus) -> None:
    inboxes = []
    for name in ("w1", "w2"):
        worker = await world.connect()
        inboxes.append(Inbox())
        await worker.consume(topology.control(name), inboxes[-1], prefetch=10)
    await bus.broadcast(b"cancel", {"kind": "control"})
    for inbox in inboxes:
        (delivery,) = await inbox.wait(1)
        assert (delivery.body, delivery.headers) == (b"cancel", {"kind": "control"})


async def test_tokens_stream_in_order_to_an_exclusive_queue(world: World, bus: Bus) -> None:
    master, inbox = await world.connect(), Inbox()
    queue = topology.tokens("master-1")
    await master.consume(queue, inbox, prefetch=1000)
    chunks = [str(i).encode() for i in range(500)]
    for chunk in chunks:
        await bus.stream(queue.name, chunk)
    await inbox.wait(500)
    assert inbox.bodies == chunks


async def test_a_full_exclusive_queue_drops_its_oldest(world: World, bus: Bus) -> None:
    master, inbox = await world.connect(), Inbox()
    queue = Queue("tokens.small", max_length=3, exclusive=True)
    await master.consume(queue, inbox, prefetch=1)
    await bus.stream(queue.name, b"0")
    (first,) = await inbox.wait(1)
    for i in range(1, 11):
        await bus.stream(queue.name, str(i).encode())
    # Three are there also before the last have come; this one comes after them.
    end, ended = topology.tokens("end"), Inbox()
    await master.consume(end, ended, prefetch=1)
    await bus.stream(end.name, b"end")
    await ended.wait(1)
    await depth_is(master, queue.name, 3)
    await first.ack()
    for i in (2, 3, 4):
        delivery = (await inbox.wait(i))[-1]
        await delivery.ack()
    assert inbox.bodies == [b"0", b"8", b"9", b"10"]


async def test_streaming_to_a_vanished_queue_does_not_raise(world: World, bus: Bus) -> None:
    master = await world.connect()
    queue = topology.tokens("gone")
    await master.consume(queue, Inbox(), prefetch=1)
    await master.aclose()
    await bus.stream(queue.name, b"token")
    await bus.publish(WORK.name, b"still works")


async def test_an_exclusive_queue_dies_with_its_connection(world: World, bus: Bus) -> None:
    master = await world.connect()
    queue = topology.tokens("short")
    await master.consume(queue, Inbox(), prefetch=1)
    assert await master.depth(queue.name) is not None
    await master.aclose()

    async def gone() -> bool:
        return await bus.depth(queue.name) is None

    await eventually(gone)
    with pytest.raises(Unroutable):
        await bus.publish(queue.name, b"token")


async def test_an_exclusive_queue_belongs_to_one_connection(world: World, bus: Bus) -> None:
    queue = topology.control("w1")
    await bus.consume(queue, Inbox(), prefetch=1)
    other = await world.connect()
    with pytest.raises(BusError, match=r"control\.w1.*exclusive"):
        await other.consume(queue, Inbox(), prefetch=1)


@pytest.mark.parametrize(
    ("pattern", "seen"),
    [
        ("request.*", ["request.completed"]),
        ("request.#", ["request", "request.completed", "request.part.done"]),
        ("*.completed", ["request.completed", "subtask.completed"]),
        ("#", ["request", "request.completed", "subtask.completed", "request.part.done"]),
    ],
)
async def test_a_watcher_sees_the_events_of_its_pattern(
    world: World, bus: Bus, pattern: str, seen: list[str]
) -> None:
    watching, inbox = await world.connect(), Inbox()
    queue = topology.watcher("test")
    await watching.watch(queue, pattern, inbox)
    for key in ("request", "request.completed", "subtask.completed", "request.part.done"):
        await bus.emit(key, key.encode())
    await bus.stream(queue.name, b"end")
    await inbox.wait(len(seen) + 1)
    assert inbox.bodies == [*(key.encode() for key in seen), b"end"]


async def test_a_queue_of_events_keeps_them_until_somebody_comes(world: World, bus: Bus) -> None:
    queue = Queue("events.later", max_length=3, delivery_limit=20, events="request.#")
    end, ended = topology.watcher("end"), Inbox()
    await bus.watch(end, "test.end", ended)
    await bus.declare([queue])
    await bus.declare([queue])  # as somebody does who provisions again
    for number in range(5):
        await bus.emit("worker.gone", b"not asked for")
        await bus.emit("request.completed", str(number).encode())
    # Three are there also before the last have come; this one comes after them.
    await bus.emit("test.end", b"end")
    await ended.wait(1)
    await depth_is(bus, queue.name, 3)
    inbox = Inbox()
    await (await world.connect()).consume(queue, inbox, prefetch=10)
    assert [d.body for d in await inbox.wait(3)] == [b"2", b"3", b"4"]


async def test_depth_is_fresh_and_none_for_a_missing_queue(bus: Bus) -> None:
    assert await bus.depth("nowhere") is None
    await depth_is(bus, WORK.name, 0)
    for _ in range(7):
        await bus.publish(WORK.name, b"grain")
    await depth_is(bus, WORK.name, 7)
    await bus.consume(WORK, Inbox(), prefetch=3)
    await depth_is(bus, WORK.name, 4)
    depth = await bus.depth(WORK.name)
    assert depth is not None
    assert depth.consumers == 1


async def test_quarantine_keeps_body_reason_and_origin(bus: Bus) -> None:
    inbox, cell = Inbox(), Inbox()
    await bus.consume(WORK, inbox, prefetch=1)
    await bus.consume(QUARANTINE, cell, prefetch=1)
    await bus.publish(WORK.name, b"\xff not JSON")
    (delivery,) = await inbox.wait(1)
    await quarantine(bus, delivery, "body: invalid JSON")
    (kept,) = await cell.wait(1)
    assert kept.body == b"\xff not JSON"
    assert kept.headers == {
        "x-millrace-reason": "body: invalid JSON",
        "x-millrace-queue": WORK.name,
    }
    await depth_is(bus, WORK.name, 0)


async def test_other_arguments_for_an_existing_queue_are_a_clear_error(bus: Bus) -> None:
    with pytest.raises(BusError, match=r"'work' exists with other arguments.*delete it"):
        await bus.declare([Queue(WORK.name, max_length=5)])
    await bus.publish(WORK.name, b"still works")


async def test_a_closed_bus_says_so(world: World) -> None:
    bus = await world.connect()
    await bus.aclose()
    with pytest.raises(BusUnavailable):
        await bus.publish(WORK.name, b"grain")
    await bus.stream(WORK.name, b"token")
