"""Workers as processes on a real RabbitMQ: killed, terminated, and first on an empty broker."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from bus import rabbitmq
from queue_schemas import topology
from queue_schemas.codec import encode
from queue_schemas.messages import RESULT, STREAM, WORKER, Completed, Heartbeat, Started
from queue_schemas.registry import Model
from tests.doubles.fleet import REPLY_TO, Mailbox, assembled
from tests.doubles.subtasks import a_model, a_subtask

ROOT = Path(__file__).parents[3]
MODEL = a_model(options={"tokens": 300, "tokens_per_second": 150})
HANGING = a_model(options={"tokens": 300, "faults": [{"kind": "hang", "after_tokens": 10}]})

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(rabbitmq_url: str) -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def spawn(name: str, model: Model = MODEL) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.doubles.worker_process"]
        arguments = [rabbitmq_url, name, model.model_dump_json()]
        processes.append(subprocess.Popen([*command, *arguments], cwd=ROOT))
        return processes[-1]

    yield spawn
    for process in processes:
        process.kill()
        process.wait()


class Master:
    """The queues that a master reads."""

    def __init__(self, bus: rabbitmq.RabbitBus) -> None:
        self.bus = bus
        self.results = Mailbox(RESULT, None)
        self.workers = Mailbox(WORKER, None)
        self.stream = Mailbox(STREAM, None)

    async def listen(self) -> None:
        await self.bus.declare((*topology.SHARED, topology.subtasks(MODEL.slug)))
        await self.bus.consume(topology.RESULTS, self.results.take, prefetch=100)
        await self.bus.consume(topology.WORKERS, self.workers.take, prefetch=100)
        await self.bus.consume(REPLY_TO, self.stream.take, prefetch=100)


@pytest.fixture
async def master(rabbitmq_url: str) -> AsyncIterator[Master]:
    bus = await rabbitmq.connect(rabbitmq_url, name="test master")
    yield Master(bus)
    await bus.aclose()


async def test_a_killed_workers_subtask_is_answered_by_another(
    start: Start, master: Master
) -> None:
    await master.listen()
    # It would not end however long this one stands still; the other one has it only afterwards.
    doomed = start("worker-1", HANGING)
    subtask = a_subtask(reply_to=REPLY_TO.name)
    await master.bus.publish(topology.subtasks(MODEL.slug).name, *encode(subtask))
    await master.stream.wait_for(lambda all_: assembled(all_, subtask.subtask), 30)
    start("worker-2")
    await master.workers.wait_for(beats_of("worker-2"), 30)

    doomed.kill()
    await master.results.wait_for(lambda all_: all_, 30)

    (result,) = master.results.messages
    first, second = claims_of(master.stream.messages)
    assert (first.delivery, second.delivery) == (0, 1)
    assert (first.worker, second.worker, result.worker) == ("worker-1", "worker-2", "worker-2")
    assert isinstance(result, Completed)
    assert (result.execution, len(result.text.split())) == (second.execution, 300)


def beats_of(worker: str) -> Callable[[list[object]], list[Heartbeat]]:
    return lambda all_: [m for m in all_ if isinstance(m, Heartbeat) and m.worker == worker]


def claims_of(messages: list[object]) -> list[Started]:
    return [m for m in messages if isinstance(m, Started)]


async def test_a_terminated_worker_finishes_its_subtask_and_exits_with_0(
    start: Start, master: Master
) -> None:
    await master.listen()
    worker = start("worker-1")
    subtask = a_subtask(reply_to=REPLY_TO.name)
    await master.bus.publish(topology.subtasks(MODEL.slug).name, *encode(subtask))
    await master.stream.wait_for(lambda all_: assembled(all_, subtask.subtask), 30)

    worker.send_signal(signal.SIGTERM)
    await master.results.wait_for(lambda all_: all_, 30)
    await master.workers.wait_for(lambda all_: all_ and getattr(all_[-1], "stopped", False), 30)

    assert isinstance(master.results.messages[0], Completed)
    assert worker.wait(30) == 0


async def test_a_worker_may_be_the_first_process_on_an_empty_broker(
    start: Start, master: Master
) -> None:
    start("worker-1")
    await master.bus.declare((topology.WORKERS,))
    await master.bus.consume(topology.WORKERS, master.workers.take, prefetch=100)
    await master.workers.wait_for(lambda all_: all_, 30)

    subtask = a_subtask(parameters={"max_tokens": 3})
    await master.bus.publish(topology.subtasks(MODEL.slug).name, *encode(subtask))
    await master.bus.consume(topology.RESULTS, master.results.take, prefetch=100)
    await master.results.wait_for(lambda all_: all_, 30)

    assert isinstance(master.results.messages[0], Completed)
