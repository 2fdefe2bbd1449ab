"""The decision, against the formula that Kubernetes documents for its HorizontalPodAutoscaler."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.scaling.desired import History, Limits, Rule, desired, recommended

RULE = Rule()
LIMITS = Limits(1, 8)


@pytest.mark.parametrize(
    ("messages", "current", "workers"),
    [
        (0, 1, 0),
        (1, 1, 1),
        (2, 1, 2),
        (40, 1, 40),
        (8, 9, 8),  # with nine or fewer, every single message counts
        (10, 9, 10),
        (9, 10, 10),  # 0.9: inside the tolerance
        (8, 10, 8),
        (11, 10, 10),  # 1.1: inside as well
        (12, 10, 12),
        (10, 11, 11),
        (12, 11, 11),
        (13, 11, 13),
        (0, 0, 0),
        (1, 0, 1),  # from nothing there is no ratio
        (25, 0, 25),
    ],
)
def test_one_worker_per_message_unless_the_load_is_within_the_tolerance(
    messages: int, current: int, workers: int
) -> None:
    assert recommended(messages, current, RULE) == workers


@pytest.mark.parametrize(("messages", "workers"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_target_of_several_messages_is_rounded_up(messages: int, workers: int) -> None:
    assert recommended(messages, 0, Rule(target=4)) == workers


def test_a_burst_is_followed_in_one_step_up_to_the_maximum() -> None:
    assert desired(5, 1, LIMITS, RULE, History(), 0)[0] == 5
    assert desired(500, 1, LIMITS, RULE, History(), 0)[0] == 8


def test_the_first_message_starts_a_worker_where_none_is_kept() -> None:
    limits = Limits(0, 4)
    assert desired(0, 0, limits, RULE, History(), 0)[0] == 0
    assert desired(1, 0, limits, RULE, History(), 0)[0] == 1


def steps(loads: list[int], limits: Limits, rule: Rule, every: float, start: int = 1) -> list[int]:
    """How many workers there are after each of these loads, one look after the other."""
    workers, history, found = start, History(), []
    for number, messages in enumerate(loads):
        workers, history = desired(messages, workers, limits, rule, history, number * every)
        found.append(workers)
    return found


def test_a_worker_goes_when_it_was_wanted_at_no_time_in_the_window() -> None:
    found = steps([4] + [0] * 40, LIMITS, RULE, every=15)
    assert found[:20] == [4] * 20  # the burst was at 0 s; 285 s
    assert found[20] == 3  # 300 s


def test_one_worker_goes_per_minute() -> None:
    found = steps([4] + [0] * 40, LIMITS, RULE, every=15)
    assert found[20:33] == [3] * 4 + [2] * 4 + [1] * 5


def test_the_last_worker_goes_too_where_none_is_kept() -> None:
    found = steps([2] + [0] * 40, Limits(0, 4), RULE, every=15, start=0)
    assert found[0] == 2
    assert found[-1] == 0


def test_a_load_that_comes_back_within_the_window_costs_no_worker() -> None:
    assert set(steps([4, 0, 0, 0, 4] * 20, LIMITS, RULE, every=60)) == {4}


def test_several_may_go_in_one_period_when_the_policy_says_so() -> None:
    rule = Rule(down_window_seconds=0, down_workers=3, down_period_seconds=60)
    assert steps([8, 0, 0, 0, 0, 0], LIMITS, rule, every=30) == [8, 5, 5, 2, 2, 1]


def test_limits_that_were_changed_count_at_once() -> None:
    assert desired(9, 9, Limits(1, 3), RULE, History(), 0)[0] == 3
    assert desired(0, 1, Limits(4, 9), RULE, History(), 0)[0] == 4


loads = st.lists(st.integers(0, 60), min_size=1, max_size=60)
limits = st.tuples(st.integers(0, 20), st.integers(1, 20)).map(lambda p: Limits(min(p), max(p)))
rules = st.builds(
    Rule,
    target=st.integers(1, 5),
    tolerance=st.sampled_from([0.0, 0.1, 0.25]),
    down_window_seconds=st.sampled_from([0.0, 7.0, 300.0]),
    down_workers=st.integers(1, 4),
    down_period_seconds=st.sampled_from([1.0, 10.0, 60.0]),
)
every = st.sampled_from([0.5, 2.0, 15.0])


@given(loads, limits, rules, every)
def test_there_are_never_fewer_than_the_minimum_or_more_than_the_maximum(
    loads: list[int], limits: Limits, rule: Rule, every: float
) -> None:
    for workers in steps(loads, limits, rule, every):
        assert limits.minimum <= workers <= limits.maximum


@given(loads, limits, rules, every)
def test_it_never_shrinks_faster_than_the_policy(
    loads: list[int], limits: Limits, rule: Rule, every: float
) -> None:
    found = steps(loads, limits, rule, every, start=limits.minimum)
    gone = [max(0, before - after) for before, after in pairwise([limits.minimum, *found])]
    for number in range(len(gone)):
        period = [
            gone[other]
            for other in range(number, len(gone))
            if (other - number) * every < rule.down_period_seconds
        ]
        assert sum(period) <= rule.down_workers


@given(loads, limits, rules, every)
def test_no_worker_goes_that_was_wanted_within_the_window(
    loads: list[int], limits: Limits, rule: Rule, every: float
) -> None:
    exact = replace(rule, tolerance=0.0)
    found = steps(loads, limits, exact, every, start=limits.minimum)
    for number, (before, after) in enumerate(pairwise(found), start=1):
        if after < before:
            window = [
                load
                for other, load in enumerate(loads[: number + 1])
                if other == number or (number - other) * every < rule.down_window_seconds
            ]
            assert after >= min(recommended(max(window), 0, exact), limits.maximum)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20), limits, rules)
def test_a_larger_load_never_means_fewer_workers(
    one: int, other: int, current: int, limits: Limits, rule: Rule
) -> None:
    history = History(((99.0, 3),), ((99.0, 1),))
    small, large = (
        desired(messages, current, limits, rule, history, 100.0)[0]
        for messages in sorted((one, other))
    )
    assert small <= large


@given(st.integers(0, 60), st.integers(1, 20), rules)
def test_a_steady_load_is_followed_within_the_tolerance(
    messages: int, start: int, rule: Rule
) -> None:
    found = steps([messages] * 400, Limits(0, 100), rule, every=60, start=start)[-1]
    exact = recommended(messages, 0, rule)
    assert found == exact or recommended(messages, found, rule) == found


def test_the_history_holds_no_more_than_the_window() -> None:
    history, workers = History(), 1
    for number in range(1000):
        workers, history = desired(number % 9, workers, LIMITS, RULE, history, number * 2.0)
    assert len(history.recommended) <= 151
    assert len(history.removed) <= 60
