"""The circuit breaker of an engine: when it opens, for how long, and what a probe does."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.breaker import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    OPENS_AFTER,
    Breaker,
    State,
    after_check,
    after_failure,
    after_nothing,
    after_success,
    begun,
)

PROBED = Breaker(pause_seconds=15, open_until=100, probing=True)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "success", "failure", "at once", "nothing", "check"]),
        st.floats(0, 400),
    ),
    max_size=60,
)


def after(breaker: Breaker, event: str, now: float) -> Breaker:
    match event:
        case "begin":
            return begun(breaker, now) if breaker.allows(now) else breaker
        case "success":
            return after_success(breaker)
        case "failure":
            return after_failure(breaker, now)
        case "at once":
            return after_failure(breaker, now, at_once=True)
        case "nothing":
            return after_nothing(breaker)
        case _:
            return after_check(breaker, now)


def failed(times: int, now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker = after_failure(breaker, now)
    return breaker


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    assert failed(OPENS_AFTER - 1).state(0) is State.CLOSED
    assert failed(OPENS_AFTER).state(0) is State.OPEN
    assert after_failure(after_success(failed(OPENS_AFTER - 1)), 0).state(0) is State.CLOSED


def test_what_is_no_bad_luck_opens_it_at_once() -> None:
    assert after_failure(Breaker(), 0, at_once=True).state(0) is State.OPEN


def test_after_the_pause_one_probe_goes_through() -> None:
    breaker = failed(OPENS_AFTER)
    assert not breaker.allows(FIRST_PAUSE_SECONDS - 0.1)
    assert breaker.allows(FIRST_PAUSE_SECONDS)
    assert not begun(breaker, FIRST_PAUSE_SECONDS).allows(FIRST_PAUSE_SECONDS + 1000)


def test_a_probe_that_was_given_up_makes_room_for_the_next() -> None:
    assert after_nothing(PROBED).allows(100)


def test_a_probe_that_succeeds_closes_it_for_good() -> None:
    assert after_success(PROBED) == Breaker()


def test_each_failed_probe_doubles_the_pause_up_to_five_minutes() -> None:
    breaker, now, pauses = failed(OPENS_AFTER), 0.0, []
    for _ in range(7):
        pauses.append(breaker.wait_seconds(now))
        now += pauses[-1]
        breaker = after_failure(begun(breaker, now), now)
    assert pauses == [15, 30, 60, 120, 240, 300, 300]


def test_late_failures_do_not_lengthen_the_pause() -> None:
    breaker = failed(OPENS_AFTER)
    assert after_failure(breaker, 1) == breaker


def test_an_engine_that_passed_a_check_is_probed_at_once() -> None:
    breaker = after_check(failed(OPENS_AFTER), 1)
    assert breaker.state(1) is State.HALF_OPEN
    assert after_failure(begun(breaker, 1), 1).wait_seconds(1) == 2 * FIRST_PAUSE_SECONDS


@pytest.mark.parametrize("breaker", [Breaker(), Breaker(failures=2), PROBED])
def test_a_check_changes_nothing_where_nothing_waits(breaker: Breaker) -> None:
    assert after_check(breaker, 100) == breaker


@given(EVENTS)
def test_nothing_goes_through_within_a_pause(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for event, seconds in events:
        now += seconds
        breaker = after(breaker, event, now)
        assert breaker.allows(now) == (
            not breaker.probing if breaker.wait_seconds(now) == 0 else False
        )
        assert 0 <= breaker.wait_seconds(now) <= LONGEST_PAUSE_SECONDS


@given(EVENTS)
def test_it_always_lets_something_through_some_time(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for event, seconds in events:
        now += seconds
        breaker = after(breaker, event, now)
    assert after_nothing(breaker).allows(now + LONGEST_PAUSE_SECONDS)


@given(EVENTS)
def test_only_failures_open_it_and_never_fewer_than_it_takes(
    events: list[tuple[str, float]],
) -> None:
    breaker, now, in_a_row = Breaker(), 0.0, 0
    for event, seconds in events:
        now += seconds
        before, breaker = breaker, after(breaker, event, now)
        in_a_row = 0 if event == "success" else in_a_row + (event in {"failure", "at once"})
        opened = before.state(now) is State.CLOSED and breaker.state(now) is State.OPEN
        assert not opened or event == "at once" or in_a_row >= OPENS_AFTER


@given(st.integers(1, 20))
def test_pauses_never_get_shorter_while_it_fails(probes: int) -> None:
    breaker, now, pauses = after_failure(Breaker(), 0, at_once=True), 0.0, []
    for _ in range(probes):
        pauses.append(breaker.pause_seconds)
        now += breaker.wait_seconds(now)
        breaker = after_failure(begun(breaker, now), now)
    assert all(shorter <= longer for shorter, longer in pairwise(pauses))
