"""How a worker stands, for those who ask from outside: probes, metrics, the cost of its pod.

The consumer writes it, others read it; all on one event loop.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from bus.protocol import Consumer
from queue_schemas.messages import CANCELLED, Completed, Failed
from queue_schemas.registry import Model
from worker.pace import Pace


class Obstacle(StrEnum):
    """Why a worker takes no subtasks."""

    STARTING = "starting"
    """It has not looked at its engine yet."""
    ENGINE = "engine"
    """The engine does not answer, or does not have the model (loaded)."""
    BROKER = "broker"
    """There is no connection to the broker, or no queue."""
    DRAINING = "draining"
    """It was told to stop, and finishes what it has."""


@dataclass
class Standing:
    """What one worker process does, and whether it can take more."""

    worker: str
    model: Model
    obstacle: Obstacle | None = Obstacle.STARTING
    message: str = "its engine was not looked at yet"
    """The obstacle in words."""
    consumer: Consumer | None = None
    """Of the subtasks, once the engine was ready."""
    heart: "asyncio.Task[None] | None" = None
    """What sends heartbeats, for as long as it is to send them."""
    running: dict[UUID, float] = field(default_factory=dict)
    """When each execution began, on the monotonic clock."""
    executions: Counter[str] = field(default_factory=Counter)
    """By outcome: completed, failed, cancelled."""
    tokens: Counter[str] = field(default_factory=Counter)
    """By kind: prompt, completion."""
    engine_seconds: float = 0.0
    redeliveries: int = 0
    """Subtasks that it was handed after somebody else had them."""
    engine_failures: Counter[str] = field(default_factory=Counter)
    """Executions that failed, by kind of error."""
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.model.name)

    def waits_for(self, obstacle: Obstacle, message: str) -> None:
        """It takes nothing for now. Draining is for ever."""
        if self.obstacle is not Obstacle.DRAINING:
            self.obstacle, self.message = obstacle, message

    def consumes(self, consumer: Consumer) -> None:
        """It takes subtasks."""
        self.consumer = consumer
        if self.obstacle is not Obstacle.DRAINING:
            self.obstacle, self.message = None, ""

    def why_not_ready(self) -> tuple[Obstacle, str] | None:
        """What keeps it from taking subtasks at this moment."""
        if self.obstacle is not None:
            return self.obstacle, self.message
        if self.consumer is None or not self.consumer.active:
            return Obstacle.BROKER, "the connection to the broker or the model's queue is lost"
        return None

    @property
    def alive(self) -> bool:
        """Whether it does what only a restart could bring back."""
        return self.obstacle is Obstacle.DRAINING or self.heart is None or not self.heart.done()

    def began(self, execution: UUID) -> None:
        """An execution runs."""
        self.running[execution] = time.monotonic()

    def ended(self, execution: UUID) -> None:
        """It does not any more, whatever came of it."""
        self.running.pop(execution, None)

    def count(self, outcome: Completed | Failed) -> None:
        """Count an execution that has its outcome."""
        cancelled = isinstance(outcome, Failed) and outcome.code == CANCELLED
        self.executions[CANCELLED if cancelled else outcome.status] += 1
        self.tokens["prompt"] += outcome.usage.prompt_tokens
        self.tokens["completion"] += outcome.usage.completion_tokens
        self.engine_seconds += outcome.usage.engine_seconds
        if isinstance(outcome, Failed) and not cancelled:
            self.engine_failures[outcome.kind.value] += 1
        self.pace.note(outcome.usage)
