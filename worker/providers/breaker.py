"""When an engine that failed is left alone, and when it is tried again. Pure.

Three failures in a row open the breaker: one or two may be bad luck. What says that the engine as
such is of no use (nobody listens, the key is refused, it lacks the model) opens it at once: more
tries would cost the next clients up to the connection's timeout each, and tell nothing new.
"""

from dataclasses import dataclass, replace
from enum import StrEnum, auto
from typing import Final

OPENS_AFTER: Final = 3
FIRST_PAUSE_SECONDS: Final = 15.0
LONGEST_PAUSE_SECONDS: Final = 300.0


class State(StrEnum):
    """What a breaker does at some moment."""

    CLOSED = auto()
    """Everything goes through."""
    OPEN = auto()
    """Nothing goes through until the pause is over."""
    HALF_OPEN = auto()
    """The pause is over: one probe goes through, and how it ends decides."""


@dataclass(frozen=True)
class Breaker:
    """How one engine has been. Moments are seconds of any clock that only goes forward."""

    failures: int = 0
    """In a row, while closed."""
    pause_seconds: float = 0.0
    """Of the last pause; 0: none since the last success."""
    open_until: float | None = None
    probing: bool = False

    def state(self, now: float) -> State:
        """What it does now."""
        if self.open_until is None:
            return State.CLOSED
        return State.OPEN if now < self.open_until else State.HALF_OPEN

    def allows(self, now: float) -> bool:
        """Whether a subtask may go to the engine now."""
        state = self.state(now)
        return state is State.CLOSED or (state is State.HALF_OPEN and not self.probing)

    def wait_seconds(self, now: float) -> float:
        """Until the next probe."""
        return max(0.0, (self.open_until or now) - now)


def begun(breaker: Breaker, now: float) -> Breaker:
    """After a subtask that was allowed went to the engine."""
    return replace(breaker, probing=breaker.state(now) is State.HALF_OPEN)


def after_success(_breaker: Breaker) -> Breaker:
    """Closed, whatever it was: an answer that is complete is the best news there is."""
    return Breaker()


def after_failure(breaker: Breaker, now: float, *, at_once: bool = False) -> Breaker:
    """Closed until there are enough of them; a failed probe doubles the pause."""
    state = breaker.state(now)
    if state is State.OPEN:
        return breaker  # it began before the others failed, and says the same as they did
    failures = breaker.failures + 1
    if state is State.CLOSED and failures < OPENS_AFTER and not at_once:
        return replace(breaker, failures=failures)
    pause = min(2 * breaker.pause_seconds or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    return Breaker(pause_seconds=pause, open_until=now + pause)


def after_nothing(breaker: Breaker) -> Breaker:
    """A probe was given up and tells nothing: the next subtask is one."""
    return replace(breaker, probing=False)


def after_check(breaker: Breaker, now: float) -> Breaker:
    """The engine was looked at and seems well: no need to wait any longer with the probe."""
    return replace(breaker, open_until=now) if breaker.state(now) is State.OPEN else breaker
