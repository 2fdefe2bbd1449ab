"""The worker's loop on a memory bus: what it takes, reports, settles and obeys."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import uuid4

import pytest
from pydantic import SecretStr

from bus.protocol import BusError, BusUnavailable, PublishUnknown, QueueFull
from millrace.chaos.engine import Engine, Reply
from millrace.chaos.stack import until
from queue_schemas import topology
from queue_schemas.codec import encode
from queue_schemas.messages import (
    Cancel,
    Completed,
    Drain,
    ErrorKind,
    Failed,
    Resend,
    Started,
    SubtaskRequest,
)
from queue_schemas.registry import Model
from tests.doubles.fleet import ELSEWHERE, REPLY_TO, Fleet, assembled
from tests.doubles.subtasks import a_model, a_subtask
from tests.integration.master.gated import Gates
from tests.integration.worker.conftest import Served
from worker.consumer import MOST_DELIVERIES
from worker.providers.diagnosis import UNREACHABLE, failure
from worker.providers.protocol import Delta, Finish
from worker.providers.scripted import Scripted
from worker.standing import Standing

SUBTASKS = topology.subtasks("mill").name
ENDLESS = {"tokens": 1_000_000, "tokens_per_second": 200}


async def test_a_subtask_is_claimed_streamed_reported_and_acknowledged() -> None:
    async with Fleet(a_model(options={"text": "The wheel turns."})) as fleet:
        fleet.start()
        subtask = a_subtask(reply_to=REPLY_TO.name)
        await fleet.submit(subtask)

        result = await fleet.result(subtask)
        started = await fleet.started(subtask)
        await fleet.text_seen(subtask, "The wheel turns.")

    assert isinstance(result, Completed)
    assert result.text == "The wheel turns."
    assert result.execution == started.execution
    assert (result.usage.completion_tokens, result.usage.estimated) == (3, False)
    assert result.usage.first_token_seconds is not None
    assert isinstance(fleet.stream.messages[0], Started), "the claim precedes the text"
    assert fleet.waiting(SUBTASKS) == 0


async def test_a_claim_that_nobody_can_store_is_no_failure() -> None:
    async with Fleet(a_model()) as fleet:
        fleet.start()
        await fleet.beat(lambda beat: not beat.draining)
        fleet.broker.queues.pop(topology.WORKERS.name)
        subtask = a_subtask()
        await fleet.submit(subtask)

        assert isinstance(await fleet.result(subtask), Completed)


class Held(Scripted):
    """An engine that says nothing until it may."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.running = self.most = 0
        self.may = asyncio.Event()

    async def complete(self, subtask: SubtaskRequest) -> AsyncGenerator[Delta | Finish, None]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.may.wait()
            async with aclosing(super().complete(subtask)) as items:
                async for item in items:
                    yield item
        finally:
            self.running -= 1


async def test_as_many_subtasks_run_at_once_as_there_are_slots() -> None:
    model = a_model(slots=3, options={"text": "x"})
    provider = Held(model)
    async with Fleet(model) as fleet:
        fleet.start(provider)
        subtasks = [a_subtask() for _ in range(7)]
        await fleet.submit(*subtasks)
        await until(lambda: at_once(provider, 3), 30)
        assert fleet.waiting(SUBTASKS) == 4

        provider.may.set()
        for subtask in subtasks:
            await fleet.result(subtask)

    assert provider.most == 3


async def at_once(provider: Held, number: int) -> bool:
    return provider.running == number


@pytest.mark.parametrize("fault", [QueueFull("full"), BusUnavailable("away")])
async def test_a_result_is_published_until_the_broker_has_it(fault: BusError) -> None:
    model = a_model(options={"text": "x"})
    provider = Held(model)
    async with Fleet(model) as fleet:
        fleet.start(provider)
        subtask = a_subtask()
        await fleet.submit(subtask)
        await fleet.started(subtask)
        for _ in range(3):
            fleet.broker.inject(fault, stored=False)
        provider.may.set()

        assert isinstance(await fleet.result(subtask), Completed)
    assert len(fleet.results.messages) == 1


async def test_a_result_of_unknown_fate_is_published_again() -> None:
    model = a_model(options={"text": "x"})
    provider = Held(model)
    async with Fleet(model) as fleet:
        fleet.start(provider)
        subtask = a_subtask()
        await fleet.submit(subtask)
        await fleet.started(subtask)
        fleet.broker.inject(PublishUnknown("no confirm"), stored=True)
        provider.may.set()

        first, second = await fleet.result(subtask, 1), await fleet.result(subtask, 2)

    assert first == second, "the same execution, so that the master can tell"


async def test_the_subtask_stays_unacknowledged_until_its_result_is_stored() -> None:
    async with Fleet(a_model(options={"text": "x"})) as fleet:
        worker = fleet.start()
        await fleet.beat(lambda beat: not beat.draining)
        fleet.broker.queues.pop(topology.RESULTS.name)
        subtask = a_subtask()
        await fleet.submit(subtask)
        await fleet.started(subtask)

        worker.cancel()
        await fleet.buses[0].aclose()

        assert fleet.waiting(SUBTASKS) == 1


async def test_cancel_stops_the_generation_and_bills_what_was_generated() -> None:
    async with Fleet(a_model(options=ENDLESS)) as fleet:
        fleet.start()
        subtask = a_subtask(reply_to=REPLY_TO.name)
        await fleet.submit(subtask)
        await fleet.text_seen(subtask, "mill answers")

        await fleet.order(Cancel(subtasks=(subtask.subtask,)))
        result = await fleet.result(subtask)

        assert isinstance(result, Failed)
        assert (result.kind, result.code) == (ErrorKind.PERMANENT, "cancelled")
        assert result.text.startswith("mill answers")
        assert result.usage.completion_tokens > 0
        assert result.usage.prompt_tokens > 0
        assert result.usage.estimated
        await fleet.beat(lambda beat: not beat.running)


async def test_cancel_closes_the_engines_connection_within_100_ms(served: Served) -> None:
    served.engine.reply = Reply(words=("word ",) * 10_000, word_seconds=0.01)
    async with Fleet(served.model()) as fleet:
        fleet.start()
        for _ in range(10):  # a machine may stand still for once
            if await seconds_to_close(fleet, served.engine) < 0.1:
                return
    pytest.fail("it always takes longer")


async def seconds_to_close(fleet: Fleet, engine: Engine) -> float:
    """From the cancellation of a subtask to the end of its connection."""
    subtask = a_subtask(reply_to=REPLY_TO.name)
    await fleet.submit(subtask)
    await fleet.text_seen(subtask, "word")
    call = engine.chats[-1]

    ordered_at = time.monotonic()
    await fleet.order(Cancel(subtasks=(subtask.subtask,)))
    await engine.wait_for(lambda: call.client_left_at)
    assert call.client_left_at is not None
    return call.client_left_at - ordered_at


async def test_a_subtask_cancelled_before_its_delivery_is_never_begun(served: Served) -> None:
    async with Fleet(served.model()) as fleet:
        fleet.start()
        await fleet.beat(lambda beat: not beat.draining)
        subtask = a_subtask()
        await fleet.order(Cancel(subtasks=(subtask.subtask,)))
        await fleet.submit(subtask)

        result = await fleet.result(subtask)

    assert isinstance(result, Failed)
    assert result.code == "cancelled"
    assert result.usage.completion_tokens == result.usage.prompt_tokens == 0
    assert served.engine.chats == []


async def test_cancel_of_another_execution_leaves_this_one_alone() -> None:
    async with Fleet(a_model(options=ENDLESS)) as fleet:
        fleet.start()
        subtask = a_subtask(reply_to=REPLY_TO.name)
        await fleet.submit(subtask)
        started = await fleet.started(subtask)

        await fleet.order(Cancel(subtasks=(subtask.subtask,), execution=uuid4()))
        await fleet.text_seen(subtask, "mill answers")
        await fleet.order(Cancel(subtasks=(subtask.subtask,), execution=started.execution))
        result = await fleet.result(subtask)
        assert isinstance(result, Failed)

        # and the next delivery of the same subtask is not refused
        await fleet.submit(subtask.model_copy(update={"attempt": 2}))
        assert (await fleet.started(subtask, 2)).attempt == 2


async def test_resend_repeats_from_an_offset_and_moves_the_stream() -> None:
    model, gates = a_model(options={"tokens": 100}), Gates(50)
    async with Fleet(model) as fleet:
        fleet.start(gates(model))
        subtask = a_subtask(reply_to=REPLY_TO.name)
        await fleet.submit(subtask)
        await fleet.text_seen(subtask, "mill answers answer:")

        await fleet.order(Resend(subtask=subtask.subtask, offset=5, to=ELSEWHERE.name))
        await fleet.elsewhere.wait_for(bool)
        gates.open("mill")
        result = await fleet.result(subtask)
        assert isinstance(result, Completed)
        await fleet.elsewhere.wait_for(
            lambda all_: assembled(all_, subtask.subtask) == result.text[5:]
        )

    first = fleet.elsewhere.messages[0]
    assert (first.offset, first.text[:7]) == (5, "answers")
    assert result.text.startswith(assembled(fleet.stream.messages, subtask.subtask))


async def test_an_unreadable_subtask_goes_to_quarantine_and_the_worker_lives() -> None:
    async with Fleet(a_model()) as fleet:
        fleet.start()
        await fleet.bus.publish(SUBTASKS, b'{"type":"subtask"}', {})
        subtask = a_subtask()
        await fleet.submit(subtask)

        assert isinstance(await fleet.result(subtask), Completed)
        parked = fleet.broker.queues[topology.QUARANTINE.name].ready
        assert [message.body for message in parked] == [b'{"type":"subtask"}']
        assert parked[0].headers["x-millrace-queue"] == SUBTASKS
        assert "request" in parked[0].headers["x-millrace-reason"]


async def test_an_unsigned_subtask_and_an_unsigned_order_are_refused() -> None:
    model = a_model()
    provider = Held(model)
    async with Fleet(model, queue_key=SecretStr("0123456789abcdef")) as fleet:
        fleet.start(provider)
        signed, unsigned = a_subtask(), a_subtask()
        await fleet.submit(signed)
        await fleet.started(signed)
        await fleet.bus.publish(SUBTASKS, *encode(unsigned))
        await fleet.bus.broadcast(*encode(Cancel(subtasks=(signed.subtask,))))
        # The order is put aside while the subtask runs, which has the only slot.
        await until(lambda: put_aside(fleet, 1), 30)
        provider.may.set()

        result = await fleet.result(signed)
        await until(lambda: put_aside(fleet, 2), 30)

    assert isinstance(result, Completed), "a stranger's Cancel does nothing"
    assert [r.subtask for r in fleet.results.messages] == [signed.subtask]


async def put_aside(fleet: Fleet, number: int) -> bool:
    return len(fleet.broker.queues[topology.QUARANTINE.name].ready) == number


async def test_a_subtask_of_another_model_is_not_answered_by_this_one() -> None:
    async with Fleet(a_model()) as fleet:
        fleet.start()
        subtask = a_subtask(model="another")
        await fleet.submit(subtask)

        result = await fleet.result(subtask)

    assert isinstance(result, Failed)
    assert (result.kind, result.code) == (ErrorKind.TRANSIENT, "wrong_model")


async def test_a_lost_connection_aborts_without_a_result_and_another_worker_goes_on() -> None:
    model = a_model(options={"text": "x"})
    async with Fleet(model) as fleet:
        fleet.start(Held(model))
        subtask = a_subtask(reply_to=REPLY_TO.name)
        await fleet.submit(subtask)
        first = await fleet.started(subtask)
        fleet.start(name="worker-2")
        await fleet.beat(lambda beat: beat.worker == "worker-2")

        await fleet.buses[0].aclose()
        second = await fleet.started(subtask, 2)
        result = await fleet.result(subtask)

    assert (first.delivery, second.delivery) == (0, 1)
    assert second.worker == "worker-2"
    assert result.execution == second.execution
    assert len(fleet.results.messages) == 1


async def test_a_subtask_that_has_outlived_several_workers_is_refused_as_poison() -> None:
    async with Fleet(a_model(options=ENDLESS)) as fleet:
        subtask = a_subtask(reply_to=REPLY_TO.name)
        for number in range(MOST_DELIVERIES):
            fleet.start(name=f"worker-{number}")
            await fleet.beat(lambda beat, number=number: beat.worker == f"worker-{number}")
            if number == 0:
                await fleet.submit(subtask)
            await fleet.started(subtask, number + 1)
            await fleet.buses[number].aclose()
        last = Standing("worker-last", fleet.model)
        fleet.start(name="worker-last", standing=last)
        result = await fleet.result(subtask)

    assert isinstance(result, Failed)
    assert (result.kind, result.code) == (ErrorKind.POISON, "worker_lost")
    assert (result.delivery, result.worker) == (MOST_DELIVERIES, "worker-last")
    assert (last.engine_failures["poison"], last.executions["failed"]) == (1, 1)
    assert len(fleet.results.messages) == 1


async def test_the_worker_itself_goes_on_after_its_connection_broke() -> None:
    model = a_model(options={"text": "x"})
    provider = Held(model)
    async with Fleet(model) as fleet:
        fleet.start(provider)
        subtask = a_subtask()
        await fleet.submit(subtask)
        first = await fleet.started(subtask)

        await fleet.buses[0].break_connection()
        provider.may.set()
        result = await fleet.result(subtask)

    assert isinstance(result, Completed)
    assert result.execution != first.execution


async def test_heartbeats_name_what_runs() -> None:
    model = a_model(options={"text": "x"}, slots=2)
    provider = Held(model)
    async with Fleet(model, heartbeat_seconds=0.05) as fleet:
        fleet.start(provider)
        first = await fleet.beat(lambda _: True)
        subtask = a_subtask()
        await fleet.submit(subtask)
        started = await fleet.started(subtask)
        beat = await fleet.beat(lambda beat: beat.running)
        provider.may.set()
        await fleet.result(subtask)

    assert (first.worker, first.model, first.slots, first.provider) == (
        "worker-1", "mill", 2, "scripted",
    )  # fmt: skip
    assert not first.draining
    (line,) = beat.running
    assert (line.request, line.subtask, line.attempt) == (subtask.request, subtask.subtask, 1)
    assert (line.execution, line.delivery) == (started.execution, started.delivery)


async def test_stopping_finishes_what_runs_and_takes_nothing_new() -> None:
    model = a_model(options={"text": "x"})
    provider = Held(model)
    async with Fleet(model, heartbeat_seconds=0.05) as fleet:
        worker = fleet.start(provider)
        running, late = a_subtask(), a_subtask()
        await fleet.submit(running)
        await fleet.started(running)

        fleet.stop.set()
        draining = await fleet.beat(lambda beat: beat.draining)
        await fleet.submit(late)
        provider.may.set()
        result = await fleet.result(running)
        await asyncio.wait_for(worker, 30)
        last = await fleet.beat(lambda beat: beat.stopped)

        assert isinstance(result, Completed)
        assert [r.subtask for r in draining.running] == [running.subtask]
        assert last.running == ()
        assert fleet.waiting(SUBTASKS) == 1


async def test_the_drain_order_stops_only_the_worker_it_names() -> None:
    async with Fleet(a_model()) as fleet:
        first, second = fleet.start(), fleet.start(name="worker-2")
        for name in ("worker-1", "worker-2"):
            await fleet.beat(lambda beat, name=name: beat.worker == name)  # type: ignore[misc]

        await fleet.order(Drain(worker="worker-2"))
        await asyncio.wait_for(second, 30)

        assert not first.done()


async def test_what_is_not_finished_in_time_is_left_to_somebody_else() -> None:
    async with Fleet(a_model(options=ENDLESS), drain_seconds=0.1) as fleet:
        worker = fleet.start()
        subtask = a_subtask()
        await fleet.submit(subtask)
        await fleet.started(subtask)

        fleet.stop.set()
        await asyncio.wait_for(worker, 30)
        await fleet.buses[0].aclose()

        assert fleet.results.messages == []
        assert fleet.waiting(SUBTASKS) == 1


class Moody(Scripted):
    """An engine that is ready when `well` is set."""

    def __init__(self) -> None:
        super().__init__(a_model(options={"faults": [{"kind": "fail", "code": UNREACHABLE[1],
                                                      "contains": "fail"}]}))  # fmt: skip
        self.well = False
        self.checks = 0
        self.checked_often = asyncio.Event()

    async def check(self) -> None:
        if not self.well:
            self.checks += 1
            if self.checks == 3:
                self.checked_often.set()
            raise failure(UNREACHABLE, "start the engine")


async def test_nothing_is_taken_until_the_engine_is_ready() -> None:
    provider = Moody()
    async with Fleet(a_model(), check_seconds=0.05) as fleet:
        fleet.start(provider)
        subtask = a_subtask()
        await fleet.submit(subtask)
        await asyncio.wait_for(provider.checked_often.wait(), 30)
        assert fleet.waiting(SUBTASKS) == 1

        provider.well = True
        assert isinstance(await fleet.result(subtask), Completed)


async def test_a_worker_that_waits_for_its_engine_can_be_stopped() -> None:
    async with Fleet(a_model()) as fleet:
        worker = fleet.start(Moody())
        await asyncio.sleep(0)
        fleet.stop.set()

        await asyncio.wait_for(worker, 30)


async def test_a_worker_with_a_sick_engine_does_not_fail_the_whole_queue() -> None:
    provider = Moody()
    provider.well = True
    async with Fleet(a_model(), sick_after=2, check_seconds=0.05) as fleet:
        fleet.start(provider)
        await fleet.beat(lambda beat: not beat.draining)
        provider.well = False
        subtasks = [a_subtask("fail") for _ in range(20)]
        await fleet.submit(*subtasks)
        await asyncio.wait_for(provider.checked_often.wait(), 30)
        failed, waiting = len(fleet.results.messages), fleet.waiting(SUBTASKS)

        provider.well = True
        well = a_subtask("well")
        await fleet.submit(well)
        assert isinstance(await fleet.result(well), Completed)

    assert failed < 10
    assert waiting > 10
