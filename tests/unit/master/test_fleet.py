"""What a look at the database may have missed stays counted."""

import asyncio
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from structlog.testing import capture_logs

from bus.protocol import BusUnavailable
from db.workers import ModelLoad
from master import fleet
from master.fleet import Dependency, FleetView, Look, Storing, absent
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


async def test_what_does_not_answer_is_away_and_back_when_it_does() -> None:
    view = a_view()
    broken = asyncio.Event()
    looks = asyncio.Queue[None]()

    async def look() -> None:
        looks.put_nowait(None)
        if broken.is_set():
            raise BusUnavailable("no connection")

    async def is_up_after_two_looks() -> bool:
        looks.get_nowait() if looks.qsize() else None
        for _ in range(2):
            await looks.get()
        return view.is_up(Dependency.BROKER, time.monotonic())

    assert not view.is_up(Dependency.BROKER, time.monotonic())
    looking = asyncio.create_task(view._often(Look.DECLARED, look, 0))
    try:
        assert await is_up_after_two_looks()
        broken.set()
        assert not await is_up_after_two_looks()
        broken.clear()
        assert await is_up_after_two_looks()
        assert not view.is_up(Dependency.DATABASE, time.monotonic())
        assert not view.is_up(Dependency.BROKER, time.monotonic() + 60), "it hangs"
    finally:
        looking.cancel()


async def test_an_outage_is_logged_once_with_what_is_away() -> None:
    tried = asyncio.Queue[None]()

    async def look() -> None:
        tried.put_nowait(None)
        raise TimeoutError

    with capture_logs() as lines:
        looking = asyncio.create_task(a_view()._often(Look.TABLES, look, 0))
        for _ in range(4):
            await tried.get()
        looking.cancel()
    [line] = lines
    assert (line["event"], line["look"], line["dependency"], line["error"]) == (
        "fleet.outage", "tables", "database", "TimeoutError",
    )  # fmt: skip


async def test_a_pool_that_is_busy_is_no_outage_of_the_database() -> None:
    view = a_view()
    tried = asyncio.Queue[None]()

    async def look() -> None:
        tried.put_nowait(None)
        if view.answered:
            raise NoConnectionFree

    looking = asyncio.create_task(view._often(Look.TABLES, look, 0))
    try:
        for _ in range(4):
            await tried.get()
        assert view.is_up(Dependency.DATABASE, time.monotonic())
        assert not view.is_up(Dependency.DATABASE, time.monotonic() + 60), "but not for ever"
    finally:
        looking.cancel()


async def test_a_census_that_took_long_rests_after_it_was_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = a_view()
    times = iter((100.0, 102.0))  # before and after the counting
    noted = asyncio.Event()
    rested: list[float] = []

    async def look() -> None:
        pass

    async def rest(seconds: float) -> None:
        rested.append(seconds)
        noted.set()
        await asyncio.Event().wait()

    clock = SimpleNamespace(monotonic=lambda: next(times))
    here = SimpleNamespace(sleep=rest)
    monkeypatch.setattr(fleet, "time", clock)
    monkeypatch.setattr(fleet, "asyncio", here)
    looking = asyncio.create_task(view._often(Look.CENSUS, look, 5.0))
    try:
        await noted.wait()
    finally:
        looking.cancel()
    assert rested == [45.0]
    assert view.answered[Dependency.DATABASE] == 102.0
    assert view.is_fresh(Look.CENSUS, 102.0 + 45.0), "until it counts again"
    assert not view.is_fresh(Look.CENSUS, 200.0)


def test_what_was_never_seen_is_not_fresh() -> None:
    assert not any(a_view().is_fresh(look, 0.0) for look in Look)


def test_what_pauses_before_its_next_try_still_takes_its_room() -> None:
    view = a_view()
    view.loads = {"mill": ModelLoad(ready=1, delayed=40, queued=2, running=3)}
    assert view.backlog("mill") == 43
    models = [{"name": "mill", "provider": "scripted"}]
    view.registry = lambda: Registry.model_validate({"models": models})
    assert view.fleet().backlog["mill"] == 46


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
