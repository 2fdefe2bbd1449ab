"""Models as people see them: what waits for each, and who works."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.workers import ModelLoad
from master.fleet import FleetView
from master.trails import Trail


@dataclass(frozen=True)
class Lane:
    """One model: what waits for it, and who works."""

    model: str
    waiting: int
    """In the database, not yet on the queue."""
    blocked: int
    """Waiting for other subtasks of their request."""
    queued: int
    running: int
    workers: int
    """That take subtasks."""
    draining: int
    """Those that take none: they finish what they have, or their engine is sick."""
    slots: int
    """Of workers that take subtasks, as is `busy`."""
    busy: int
    oldest_seconds: float | None
    tokens_per_second: float | None
    sleeps: bool
    """It has no workers while nothing waits for it."""
    delayed: int = 0
    """Pausing before their next try; nobody is behind with them."""
    trail: Trail = ()
    """How many were waiting, queued or running lately."""

    @property
    def depth(self) -> int:
        """All that is to be done."""
        return self.pending + self.running

    @property
    def pending(self) -> int:
        """What no worker has."""
        return self.waiting + self.queued


def lanes(view: FleetView) -> list[Lane]:
    """Every model that chats, in the registry's order."""
    return [
        lane(
            model.name,
            [worker for worker in view.workers if worker["model"] == model.name],
            view.loads.get(model.name, ModelLoad()),
            sleeps=model.min_workers == 0,
            trail=view.trails.of(model.name),
        )
        for model in view.registry().chat_models()
    ]


def lane(
    model: str,
    workers: Sequence[Mapping[str, Any]],
    load: ModelLoad,
    *,
    sleeps: bool,
    trail: Trail = (),
) -> Lane:
    """One model with all workers that serve it."""
    live = [worker for worker in workers if not worker["draining"]]
    return Lane(
        model=model,
        waiting=load.ready,
        blocked=load.blocked,
        delayed=load.delayed,
        queued=load.queued,
        running=load.running,
        workers=len(live),
        draining=len(workers) - len(live),
        slots=sum(worker["slots"] for worker in live),
        busy=sum(worker["running"] for worker in live),
        oldest_seconds=load.oldest_seconds or None,
        tokens_per_second=load.tokens_per_second,
        sleeps=sleeps,
        trail=trail,
    )
