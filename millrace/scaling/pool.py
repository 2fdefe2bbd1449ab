"""The workers of one model: started, drained and replaced, never killed while they have work."""

import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from millrace.scaling.desired import History, Limits, Rule, desired
from queue_schemas.registry import NOT_FOR_WORKERS, Model

_log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 60.0
HOPELESS_PAUSE_SECONDS = 300.0
STEADY_SECONDS = 60.0
"""Who has lived so long was no failed start."""
_SAID_WHY = frozenset({1, 2})
"""Exit codes of `millrace` with one line on stderr: after a start, the next would fail too."""


class Process(Protocol):
    """A process that runs, as `subprocess` has it."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal; nothing happens where it has ended."""


Launch = Callable[[Model, str], Process]
"""Starts a worker that serves this model under this name. Raises OSError."""


@dataclass
class Worker:
    """One process."""

    name: str
    entry: Model
    process: Process
    started_at: float
    draining: bool = False

    def drain(self) -> None:
        """Have it finish what it has and end. Sent once: a second signal would kill it."""
        if not self.draining:
            self.draining = True
            self.process.send_signal(signal.SIGTERM)


def to_drain(workers: Sequence[Worker], running: Mapping[str, int], number: int) -> list[Worker]:
    """Which of them go: who has least to do, and of several the youngest."""
    order = sorted(workers, key=lambda w: (running.get(w.name, 0), -w.started_at))
    return order[: max(0, number)]


def pause_seconds(failures: int) -> float:
    """Until the next start, after so many failed ones."""
    return min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)


class Pool:
    """The processes that serve one model. `wanted` is what a Deployment's `replicas` would be."""

    def __init__(self, model: Model, rule: Rule, launch: Launch) -> None:
        self.wanted = model.min_workers
        self.workers: list[Worker] = []
        self._model = model
        self._rule = rule
        self._launch = launch
        self._history: History | None = None
        self._failures = 0
        self._not_before = 0.0
        self._log = _log.bind(model=model.name)

    @property
    def serving(self) -> list[Worker]:
        """Those that are not on their way out."""
        return [worker for worker in self.workers if not worker.draining]

    def follow(self, model: Model) -> None:
        """Take the registry's latest entry; one that could not be served may be better now."""
        if model != self._model:
            self._model, self._not_before, self._failures = model, 0.0, 0

    def scale(self, messages: int, now: float) -> None:
        """Decide how many workers there should be."""
        limits = Limits(self._model.min_workers, self._model.max_workers)
        if self._history is None:  # what was here before counts as wanted until now
            self._history = History(recommended=((now, self.wanted),))
        wanted, self._history = desired(
            messages, self.wanted, limits, self._rule, self._history, now
        )
        if wanted != self.wanted:
            self._log.info("scaling.wanted", workers=wanted, before=self.wanted, messages=messages)
            self.wanted = wanted

    def retire(self) -> None:
        """The model is served no more: all of them drain."""
        self.wanted = 0
        for worker in self.serving:
            worker.drain()

    def tend(self, running: Mapping[str, int], now: float) -> None:
        """Bring the processes to what is wanted. `running`: subtasks by worker, as far as known."""
        for worker in list(self.workers):
            if (code := worker.process.poll()) is not None:
                self.workers.remove(worker)
                self._ended(worker, code, now)
        for worker in to_drain(self.serving, running, len(self.serving) - self.wanted):
            worker.drain()
            self._log.info("scaling.drains", worker=worker.name, busy=running.get(worker.name, 0))
        self._replace_outdated(running)
        while len(self.serving) < self.wanted and self._may_start(now):
            self._start(now)

    def _may_start(self, now: float) -> bool:
        # One that drains still has its memory: there are never more than the model's maximum.
        return len(self.workers) < self._model.max_workers and now >= self._not_before

    def _start(self, now: float) -> None:
        name = f"{self._model.slug}-{secrets.token_hex(4)}"
        try:
            process = self._launch(self._model, name)
        except OSError as error:  # no memory, no more processes: a moment later there may be
            self._failed(None, now, str(error), hopeless=False)
            return
        self.workers.append(Worker(name, self._model, process, now))
        self._log.info("scaling.started", worker=name)

    def _replace_outdated(self, running: Mapping[str, int]) -> None:
        """Drain one worker of an older entry of the registry at a time; a new one follows."""
        outdated = [w for w in self.serving if _served(w.entry) != _served(self._model)]
        if outdated and len(self.serving) == self.wanted == len(self.workers):
            [worker] = to_drain(outdated, running, 1)
            worker.drain()
            self._log.info("scaling.replaces", worker=worker.name)

    def _ended(self, worker: Worker, code: int, now: float) -> None:
        lived = now - worker.started_at
        if worker.draining:
            self._log.info("scaling.drained", worker=worker.name, code=code)
            return
        steady = lived >= STEADY_SECONDS
        if steady:
            self._failures = 0
        reason = f"{worker.name} ended after {lived:.0f} s"
        self._failed(code, now, reason, hopeless=code in _SAID_WHY and not steady)

    def _failed(self, code: int | None, now: float, reason: str, *, hopeless: bool) -> None:
        self._failures += 1
        pause = HOPELESS_PAUSE_SECONDS if hopeless else pause_seconds(self._failures)
        self._not_before = max(self._not_before, now + pause)
        self._log.warning("scaling.lost", reason=reason, code=code, again_in=pause)


def _served(entry: Model) -> dict[str, object]:
    return entry.model_dump(exclude=set(NOT_FOR_WORKERS))
