"""How much was to be done for each model lately."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

TRAIL = 60
_EVERY_SECONDS = 2.0

Trail = tuple[int | None, ...]
"""One number for every two seconds, the newest last; None where nobody could look."""


@dataclass
class Trails:
    """Those of this replica."""

    _kept: dict[str, deque[int | None]] = field(default_factory=dict)
    _noted_at: float | None = None

    def note(self, depths: Mapping[str, int], now: float) -> None:
        """Add what is now, two seconds after the last time. `now` is on a monotonic clock."""
        before = now - _EVERY_SECONDS if self._noted_at is None else self._noted_at
        passed = min(now - before, TRAIL * _EVERY_SECONDS)
        if passed < _EVERY_SECONDS * 0.9:
            return
        self._noted_at = now
        unseen = [None] * (max(1, int(passed / _EVERY_SECONDS)) - 1)
        for model, depth in depths.items():
            trail = self._kept.setdefault(model, deque(maxlen=TRAIL))
            trail.extend([*unseen, depth])

    def of(self, model: str) -> Trail:
        """The trail of a model."""
        return tuple(self._kept.get(model, ()))
