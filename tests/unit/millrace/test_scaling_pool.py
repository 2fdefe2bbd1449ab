"""The processes of one model: who is started, who drains, who is replaced."""

import signal
from collections.abc import Sequence
from typing import Any

import pytest

from millrace.scaling import pool as pools
from millrace.scaling.desired import Rule
from millrace.scaling.pool import Pool
from queue_schemas.registry import Model
from tests.doubles.subtasks import a_model

RULE = Rule(down_window_seconds=10, down_workers=1, down_period_seconds=2)


class Machine:
    """Starts processes that end when they are told to, or when the test says so."""

    def __init__(self) -> None:
        self.started: list[Fake] = []
        self.refuses = False

    def launch(self, model: Model, name: str) -> "Fake":
        if self.refuses:
            raise OSError(12, "Cannot allocate memory")
        self.started.append(Fake(model, name))
        return self.started[-1]

    @property
    def alive(self) -> list["Fake"]:
        return [each for each in self.started if each.code is None]

    @property
    def told(self) -> list["Fake"]:
        return [each for each in self.started if each.signals]


class Fake:
    def __init__(self, model: Model, name: str) -> None:
        self.model = model
        self.name = name
        self.code: int | None = None
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def a_pool(machine: Machine, rule: Rule = RULE, **fields: Any) -> Pool:
    return Pool(a_model(max_workers=fields.pop("max_workers", 4), **fields), rule, machine.launch)


def scaled(pool: Pool, messages: int, now: float, busy: Sequence[Fake] = ()) -> None:
    pool.scale(messages, now)
    pool.tend({each.name: 1 for each in busy}, now)


def test_it_begins_with_the_fewest_workers(machine: Machine) -> None:
    scaled(a_pool(machine, min_workers=2), 0, 0)
    assert len(machine.alive) == 2


def test_none_is_started_before_the_first_message_where_none_is_kept(machine: Machine) -> None:
    pool = a_pool(machine, min_workers=0)
    scaled(pool, 0, 0)
    assert machine.started == []
    scaled(pool, 1, 1)
    assert len(machine.alive) == 1


def test_a_burst_starts_all_that_it_needs_at_once(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 9, 0)
    assert len(machine.alive) == 4
    assert len({each.name for each in machine.started}) == 4


def test_idle_workers_go_before_busy_ones_and_of_several_the_youngest(machine: Machine) -> None:
    pool = a_pool(machine)
    for now, messages in enumerate((1, 2, 3, 4)):
        scaled(pool, messages, now)
    one, two, three, four = machine.started
    scaled(pool, 2, 14, busy=[two, four])
    assert machine.told == [three]
    scaled(pool, 2, 17, busy=[two, four])
    assert machine.told == [one, three]
    assert three.signals == [signal.SIGTERM], "a second one would kill it"


def test_a_busy_worker_that_has_to_go_drains_as_well(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 2, 0)
    pool.follow(a_model(max_workers=1))
    scaled(pool, 2, 1, busy=machine.started)
    [told] = machine.told
    scaled(pool, 2, 100, busy=machine.started)
    assert told.signals == [signal.SIGTERM]
    assert len(machine.started) == 2


def test_a_worker_that_drains_counts_towards_the_most_that_there_may_be(machine: Machine) -> None:
    pool = a_pool(machine, max_workers=2)
    scaled(pool, 2, 0)
    scaled(pool, 1, 11)
    [drains] = machine.told
    scaled(pool, 2, 12)
    assert len(machine.started) == 2, "three would not fit into memory"
    drains.code = 0
    scaled(pool, 2, 13)
    assert len(machine.started) == 3


def test_a_worker_that_drained_is_no_failure(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 2, 0)
    scaled(pool, 1, 11)
    machine.told[0].code = 0
    scaled(pool, 2, 11.5)
    assert len(machine.alive) == 2


def test_a_worker_that_crashed_is_replaced_later_and_later(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 1, 0)
    started = []
    for now in range(1, 200):
        for each in machine.alive:
            started.append(now - 1)
            each.code = -9
        scaled(pool, 1, now)
    assert started == [0, 2, 5, 10, 19, 36, 69, 130, 191]


def test_one_that_had_lived_long_is_replaced_soon(machine: Machine) -> None:
    pool = a_pool(machine)
    for now in (0, 100, 200, 300):
        scaled(pool, 1, now)
        [only] = machine.alive
        only.code = -9
        scaled(pool, 1, now + 90)
        assert not machine.alive
        scaled(pool, 1, now + 91)
        assert machine.alive


def test_the_others_go_on_while_one_waits_to_be_replaced(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 3, 0)
    machine.started[0].code = -9
    scaled(pool, 3, 0.5)
    assert len(machine.alive) == 2
    assert not machine.told
    scaled(pool, 3, 2)
    assert len(machine.alive) == 3


@pytest.mark.parametrize("code", [1, 2])
def test_a_worker_that_said_why_it_cannot_serve_is_not_started_in_a_circle(
    machine: Machine, code: int
) -> None:
    pool = a_pool(machine)
    scaled(pool, 1, 0)
    machine.started[0].code = code
    for now in range(1, 250):
        scaled(pool, 1, now)
    assert len(machine.started) == 1
    scaled(pool, 1, 302)
    assert len(machine.started) == 2


def test_one_that_had_served_for_long_could_serve_again_whatever_it_said(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 1, 0)
    machine.started[0].code = 1
    scaled(pool, 1, 500)
    scaled(pool, 1, 501)
    assert len(machine.started) == 2


def test_a_mended_entry_is_tried_at_once(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 1, 0)
    machine.started[0].code = 1
    scaled(pool, 1, 1)
    pool.follow(a_model(max_workers=4, endpoint="http://elsewhere"))
    scaled(pool, 1, 2)
    assert len(machine.started) == 2


def test_a_machine_that_starts_no_process_is_asked_again(machine: Machine) -> None:
    pool = a_pool(machine)
    machine.refuses = True
    scaled(pool, 1, 0)
    machine.refuses = False
    scaled(pool, 1, 0.5)
    assert not machine.started
    scaled(pool, 1, 1)
    assert len(machine.started) == 1


def test_pauses_grow_and_end_somewhere() -> None:
    assert [pools.pause_seconds(n) for n in (1, 2, 3)] == [1, 2, 4]
    assert pools.pause_seconds(5000) == pools.LONGEST_PAUSE_SECONDS


def test_workers_of_an_older_entry_are_replaced_one_by_one_idle_first(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 3, 0)
    one, two, three = machine.started
    pool.follow(a_model(max_workers=4, slots=2))
    scaled(pool, 3, 1, busy=[one, three])
    assert machine.told == [two]
    scaled(pool, 3, 2, busy=[one, three])
    assert machine.told == [two]
    assert machine.started[3].model.slots == 2, "there is room for one more"
    two.code = 0
    scaled(pool, 3, 3, busy=[one, three])
    assert len(machine.told) == 2


def test_other_limits_are_no_reason_to_replace_anybody(machine: Machine) -> None:
    pool = a_pool(machine)
    scaled(pool, 3, 0)
    pool.follow(a_model(max_workers=9, min_workers=0, price={"prompt": 1}))
    scaled(pool, 3, 1)
    assert not machine.told
