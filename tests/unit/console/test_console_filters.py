"""Values as pages show them."""

from datetime import UTC, datetime, timedelta, timezone
from math import ceil

import pytest

from master.console import filters


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, filters.NONE),
        (float("nan"), filters.NONE),
        (0, "0 s"),
        (0.0042, "4 ms"),
        (0.9999, "1 s"),
        (1.24, "1.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (4 * 86_400, "4 d"),
    ],
)
def test_durations(value: float | None, shown: str) -> None:
    assert filters.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, filters.NONE),
        (0, "0"),
        (12_345, "12\u202f345"),
        (0.5, "0.5"),
        (17.704, "17.7"),
        (-30, "-30"),
        (-0.001, "0"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert filters.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (812, "812 B"), (3400, "3.4 kB"), (1_500_000, "1.5 MB"), (5e12, "5000 GB")],
)
def test_sizes(value: float, shown: str) -> None:
    assert filters.bytes_(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0.00"), (12.345, "12.35"), (0.012, "0.0120"), (1e-6, "< 0.0001")]
)
def test_amounts(value: float, shown: str) -> None:
    assert filters.money(value) == shown


def test_a_moment_is_told_by_its_distance_and_in_utc() -> None:
    began = datetime.now(timezone(timedelta(hours=2)))
    then = began - timedelta(minutes=5, seconds=1)
    shown = str(filters.when(then))
    stood_still = ceil((datetime.now(UTC) - began).total_seconds())
    assert any(f"{filters.distance(301 + more)}<" in shown for more in range(stood_still + 1))
    assert filters.distance(301) == "5 min 1 s ago"
    assert then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") in shown


def test_no_moment_is_a_dash() -> None:
    assert filters.when(None) == filters.NONE


def test_what_is_to_come_is_told_as_well() -> None:
    assert filters.distance(-90) == "in 1 min 30 s"
    assert filters.distance(1) == "just now"
