"""A mark and a colour for each state of a subtask."""

from typing import NamedTuple

from queue_schemas.states import SubtaskState


class Look(NamedTuple):
    """How a state is shown."""

    mark: str
    style: str


_LOOKS = {
    SubtaskState.BLOCKED: Look("·", "dim"),
    SubtaskState.READY: Look("○", "blue"),
    SubtaskState.QUEUED: Look("○", "blue"),
    SubtaskState.RUNNING: Look("●", "cyan"),
    SubtaskState.SUCCEEDED: Look("✓", "green"),
    SubtaskState.FAILED: Look("✗", "red"),
    SubtaskState.CANCELLED: Look("-", "yellow"),
    SubtaskState.SKIPPED: Look("-", "dim"),
    SubtaskState.DEAD: Look("✗", "red"),
}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def look(state: str) -> Look:
    """How a state is shown; a state of a newer master gets a question mark."""
    known = {str(member): shown for member, shown in _LOOKS.items()}
    return known.get(state, Look("?", ""))


def spinner(clock: float) -> str:
    """The spinner's frame at this time, in seconds."""
    return _SPINNER[int(clock * 10) % len(_SPINNER)]
