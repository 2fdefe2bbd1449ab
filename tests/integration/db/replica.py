"""A replica of a master whose loops are turned by hand, so that a test decides what comes when."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.memory import MemoryBroker, MemoryBus
from master.batches import Batches
from master.cancel import cancel
from master.collect import Collector
from master.dispatch import Dispatcher
from master.facts import Fact, Received
from master.fleet import FleetView
from master.settings import MasterSettings
from master.streams import Streams
from master.sweep import Sweeper
from queue_schemas import topology
from queue_schemas.codec import decode
from queue_schemas.messages import SUBTASK, Completed, Failed, Heartbeat, Started, SubtaskRequest
from queue_schemas.registry import Registry

Note = Completed | Failed | Started | Heartbeat

REGISTRY = Registry.model_validate(
    {
        "models": [
            {"name": "mill", "provider": "scripted", "slots": 8},
            {"name": "other", "provider": "scripted", "slots": 8},
        ]
    }
)
MAX_ATTEMPTS = 3
MAX_LOSSES = 2


class InHand:
    """A message that was taken from a queue; the test says whether the broker has the ack."""

    queue = "results"
    body = b""
    delivery_count = 0

    def __init__(self) -> None:
        self.headers: dict[str, object] = {}

    async def ack(self) -> None:
        """The test decides."""

    async def retry(self) -> None:
        raise AssertionError("nothing here is to be handed out again")

    reject = retry


class Notebook(Batches[Fact]):
    """Keeps what the replica's own parts note, until the test has it written."""

    def __init__(self) -> None:
        super().__init__("facts")
        self.facts: list[Fact] = []

    def put(self, item: Fact) -> None:
        self.facts.append(item)

    def take(self) -> list[Fact]:
        """What was noted since."""
        taken, self.facts = self.facts, []
        return taken


class Replica:
    """The parts of a master process, as `master.app` wires them, without their loops."""

    def __init__(self, name: str, engine: AsyncEngine, broker: MemoryBroker, url: str) -> None:
        settings = MasterSettings(
            DATABASE_URL=SecretStr(url),
            replica=name,
            max_attempts=MAX_ATTEMPTS,
            max_losses=MAX_LOSSES,
            retries_per_minute=1e6,
            window=1000,
        )
        self._engine = engine
        self._broker = broker
        self.notebook = Notebook()
        self.bus = MemoryBus(broker)
        self._view = FleetView(lambda: REGISTRY, settings.window)
        self._view.workers = [_live(model.name) for model in REGISTRY.chat_models()]
        self._dispatcher = Dispatcher(engine, self.bus, self._view, self.notebook, None)
        streams = Streams(engine, self.bus, name, None, self._dispatcher.nudge)
        self.streams = streams
        self._collector = Collector(
            engine, self.bus, self._view, self._dispatcher, streams, self.notebook, settings
        )
        self.sweeper = Sweeper(engine, self.bus, self._view, self._dispatcher, streams, settings)

    async def release(self) -> list[SubtaskRequest]:
        """Publish what is due; returns the messages."""
        await self._dispatcher._release()
        published = []
        for model in REGISTRY.chat_models():
            queue = self._broker.queues[topology.subtasks(model.slug).name]
            published += [decode(SUBTASK, m.body, m.headers, None) for m in queue.ready]
            queue.ready.clear()
        return published

    async def write(self, notes: Sequence[Note | Fact]) -> None:
        """Have this replica write messages of workers and notes of its own in one batch."""
        facts: list[Fact] = [_fact(note) for note in notes]
        if facts:
            await self._collector._write(facts)

    async def cancel(self, request: UUID, tenant: UUID) -> bool:
        """A client presses stop."""
        return await cancel(self._engine, self.bus, self.streams, None, request, tenant)


def _fact(note: Any) -> Fact:
    # What stood in for a lost Started is a bare one; as a message it has the same effect.
    if isinstance(note, Completed | Failed | Started | Heartbeat):
        return Received(InHand(), note)
    fact: Fact = note
    return fact


def _live(model: str) -> dict[str, Any]:
    return {"name": f"w-{model}", "model": model, "slots": 8, "running": 0, "draining": False}
