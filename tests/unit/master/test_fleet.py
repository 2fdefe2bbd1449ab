"""What a look at the database may have missed stays counted."""

from collections import Counter

from master.fleet import FleetView, Storing, absent
from queue_schemas.registry import Registry


def a_view() -> FleetView:
    return FleetView(lambda: Registry(models=()), window=2)


def test_a_look_that_began_before_a_request_was_committed_does_not_forget_it() -> None:
    view = a_view()
    view.enqueuing.begin({"mill": 3})
    mark = view.enqueuing.mark()
    view.enqueuing.end({"mill": 3})  # committed while the look went on
    view.note_waiting({}, mark)
    assert view.backlog("mill") == 3


def test_a_request_that_came_during_a_look_is_counted() -> None:
    view = a_view()
    mark = view.enqueuing.mark()
    view.enqueuing.begin({"mill": 2})
    view.note_waiting({"mill": 1}, mark)
    assert view.backlog("mill") == 3


def test_the_look_after_the_commit_is_believed() -> None:
    view = a_view()
    view.enqueuing.begin({"mill": 2})
    view.enqueuing.end({"mill": 2})
    view.note_waiting({"mill": 2}, view.enqueuing.mark())
    assert view.backlog("mill") == 2
    view.note_waiting({}, view.enqueuing.mark())
    assert view.backlog("mill") == 0


def test_every_model_is_counted_for_itself() -> None:
    storing = Storing()
    mark = storing.mark()
    storing.begin({"mill": 2, "wheel": 1})
    storing.end({"wheel": 1})
    assert storing.since(mark) == Counter(mill=2, wheel=1)
    assert storing.since(storing.mark()) == Counter(mill=2)


def test_a_model_is_absent_until_a_worker_takes_subtasks_of_it() -> None:
    models = [{"name": name, "provider": "scripted", "min_workers": n} for name, n in LEAST.items()]
    registry = Registry.model_validate({"models": models})
    leaving = {"model": "mill", "draining": True}
    words = absent(registry, [leaving, {"model": "race", "draining": False}])
    assert words == {
        "mill": "Starting mill, no worker is running yet",
        "wheel": "Waiting for wheel, no worker is ready",
    }
    assert absent(registry, [{"model": name, "draining": False} for name in LEAST]) == {}


def test_before_the_first_look_nobody_is_called_absent() -> None:
    assert a_view().absent == {}


LEAST = {"mill": 0, "wheel": 1, "race": 0}
