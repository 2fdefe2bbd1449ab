"""What becomes of a subtask whose attempt failed. Pure: the caller writes what this decides."""

import random
from dataclasses import dataclass

from queue_schemas.messages import ErrorKind
from queue_schemas.states import SubtaskState

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0


@dataclass(frozen=True)
class Again:
    """Try again after so many seconds."""

    delay_seconds: float


@dataclass(frozen=True)
class GiveUp:
    """End the subtask in this state."""

    state: SubtaskState


def decide(
    kind: ErrorKind,
    attempt: int,
    *,
    max_attempts: int,
    retry_after_seconds: float | None = None,
    chance: float | None = None,
) -> Again | GiveUp:
    """Decide on a failure that a worker reported.

    `chance` in 0…1 takes the place of the jitter's dice. Waits grow as 1, 2, 4 … 60 seconds with
    full jitter; an engine's own Retry-After is the lower bound.
    """
    if kind is ErrorKind.PERMANENT:
        return GiveUp(SubtaskState.FAILED)
    if attempt >= max_attempts:
        return GiveUp(SubtaskState.DEAD)
    if kind is ErrorKind.POISON and attempt >= 2:
        return GiveUp(SubtaskState.DEAD)
    longest = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
    wait = longest * (random.random() if chance is None else chance)
    return Again(max(wait, retry_after_seconds or 0.0))


def decide_on_loss(
    attempt: int, losses: int, *, max_attempts: int, max_losses: int
) -> Again | GiveUp:
    """Decide on a worker that fell silent; `losses` counts the earlier ones."""
    if losses + 1 >= max_losses or attempt >= max_attempts:
        return GiveUp(SubtaskState.DEAD)
    return Again(0.0)
