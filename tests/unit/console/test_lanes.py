"""What is said of a model's workers."""

from db.workers import ModelLoad
from master.console.lanes import lane


def test_slots_are_those_of_workers_that_take_subtasks() -> None:
    live = {"slots": 4, "running": 1, "draining": False}
    leaving = {"slots": 8, "running": 2, "draining": True}
    found = lane("mill", [live, leaving], ModelLoad(ready=1, queued=2, running=3), sleeps=False)
    assert (found.busy, found.slots) == (1, 4)
    assert (found.workers, found.draining) == (1, 1)
    assert (found.pending, found.depth) == (3, 6)


def test_what_pauses_before_its_next_try_does_not_wait() -> None:
    found = lane("mill", [], ModelLoad(delayed=5, queued=2), sleeps=False)
    assert (found.delayed, found.waiting, found.pending) == (5, 0, 2)
