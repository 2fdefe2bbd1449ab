"""Subtasks that were cancelled a while ago: a delivery that comes later is dropped."""

from collections.abc import Callable, Iterable
from time import monotonic
from uuid import UUID

MOST = 50_000


class Tombstones:
    """Remembers ids for a bounded time, and a bounded number of them, oldest out first."""

    def __init__(self, seconds: float, now: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._until: dict[UUID, float] = {}

    def __contains__(self, subtask: UUID) -> bool:
        return self._until.get(subtask, 0.0) > self._now()

    def __len__(self) -> int:
        return len(self._until)

    def update(self, subtasks: Iterable[UUID]) -> None:
        """Remember these."""
        until = self._now() + self._seconds
        for subtask in subtasks:
            self._until.pop(subtask, None)  # back to the young end
            self._until[subtask] = until
        self._forget()

    def _forget(self) -> None:
        now = self._now()
        for subtask, until in list(self._until.items()):
            if until > now and len(self._until) <= MOST:
                return
            del self._until[subtask]
