"""When which fault comes is a pure function of the seed."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest

from millrace.chaos.faults import (
    BROKER_OUTAGES,
    BROKER_REST_SECONDS,
    FIRST_SECONDS,
    KINDS,
    schedule,
)
from millrace.chaos.outcome import Options


def test_the_same_seed_makes_the_same_schedule() -> None:
    assert schedule(7, 120, KINDS) == schedule(7, 120, KINDS)
    assert schedule(7, 120, KINDS) == schedule(7, 120, reversed(list(KINDS)))


def test_another_seed_makes_another_schedule() -> None:
    assert schedule(7, 120, KINDS) != schedule(8, 120, KINDS)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short, long = schedule(7, 60, KINDS), schedule(7, 300, KINDS)
    assert long[: len(short)] == short


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_lies_within_the_run_and_lasts_as_long_as_its_kind(seed: int) -> None:
    faults = schedule(seed, 90, KINDS)
    assert faults
    for fault in faults:
        shortest, longest = KINDS[fault.kind].seconds
        assert shortest <= fault.seconds <= longest
        assert fault.at >= FIRST_SECONDS
        assert fault.at + fault.seconds <= 90
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


def test_every_kind_comes_as_often_as_its_weight_in_a_round() -> None:
    length = sum(kind.weight for kind in KINDS.values())
    kinds = Counter(fault.kind for fault in schedule(3, 3600, KINDS)[:length])
    assert kinds == {name: kind.weight for name, kind in KINDS.items()}


@pytest.mark.parametrize("kinds", [KINDS, BROKER_OUTAGES], ids=["all", "outages only"])
def test_outages_of_the_broker_keep_their_distance(kinds: Iterable[str]) -> None:
    times = [fault.at for fault in schedule(5, 900, kinds) if fault.kind in BROKER_OUTAGES]
    assert len(times) > 10
    assert min(b - a for a, b in pairwise(times)) >= BROKER_REST_SECONDS


def test_only_the_kinds_that_are_asked_for_come() -> None:
    chosen = {"worker-kill", "broker-cut"}
    assert {fault.kind for fault in schedule(3, 120, chosen)} == chosen


def test_a_run_too_short_for_a_fault_has_none() -> None:
    assert schedule(3, FIRST_SECONDS - 1, KINDS) == ()


def test_the_replay_command_says_everything_that_the_schedule_depends_on() -> None:
    options = Options(seed=9, seconds=30, masters=3, workers=5, clients=2, kinds=("worker-kill",))
    assert options.command() == (
        "millrace chaos --seed 9 --seconds 30 --masters 3 --workers 5 --clients 2"
        " --faults worker-kill"
    )
    assert "--faults" not in Options(seed=9).command()
