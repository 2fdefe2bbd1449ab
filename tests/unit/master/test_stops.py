"""How long it takes to stop: counted of executions that a request's early end found at work."""

from dataclasses import replace
from uuid import UUID

import pytest

from db.subtasks import StoredSubtask
from master.apply import stops
from queue_schemas.messages import Completed, ErrorKind, Failed, Usage
from queue_schemas.states import SubtaskState

REQUEST, SUBTASK, EXECUTION, OTHER = (UUID(int=number) for number in range(1, 5))
COMMON = {
    "request": REQUEST,
    "subtask": SUBTASK,
    "attempt": 1,
    "execution": EXECUTION,
    "delivery": 0,
    "worker": "w",
    "usage": Usage(),
}
STOPPED = Failed(**COMMON, kind=ErrorKind.PERMANENT, code="cancelled", message="stopped")
AT_WORK = StoredSubtask(
    id=SUBTASK,
    request=REQUEST,
    step="part",
    kind="answer",
    model="m",
    depends_on=(),
    state=SubtaskState.CANCELLED,
    attempt=1,
    losses=0,
    execution=EXECUTION,
    ended_seconds=0.04,
)


def test_an_execution_that_was_at_work_took_as_long_as_its_subtask_is_ended() -> None:
    assert stops([STOPPED], {SUBTASK: AT_WORK}) == {EXECUTION: 0.04}


@pytest.mark.parametrize(
    "found",
    [
        replace(AT_WORK, execution=None),
        replace(AT_WORK, execution=OTHER),
        replace(AT_WORK, state=SubtaskState.RUNNING, ended_seconds=None),
        replace(AT_WORK, state=SubtaskState.SUCCEEDED),
    ],
    ids=["was never begun", "another one had it", "goes on elsewhere", "was answered"],
)
def test_nothing_stopped_with_a_request_whose_subtask(found: StoredSubtask) -> None:
    assert stops([STOPPED], {SUBTASK: found}) == {}


def test_what_ended_by_itself_was_not_stopped() -> None:
    done = Completed(**COMMON, text="x", finish_reason="stop")
    failed = Failed(**COMMON, kind=ErrorKind.TRANSIENT, code="timeout", message="too long")
    assert stops([done, failed], {SUBTASK: AT_WORK}) == {}
