"""What deleting a worker's pod costs, and when that is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.pod_cost import BUSY, Pace, api_server, cost, is_due

PACE = Pace()


def test_an_idle_pod_costs_nothing_and_old_work_more_than_young_work() -> None:
    assert cost([], now=100) == 0
    assert cost([100], now=100) == BUSY
    assert cost([100, 40], now=100.9) == BUSY + 60
    assert cost([101], now=100) == BUSY, "never below another busy one"


@pytest.mark.parametrize(
    ("told", "wanted", "silent", "due"),
    [
        (0, 10, 9.9, False),
        (0, 10, 10, True),
        (300, 0, 10, True),
        (300, 0, 9, False),
        (10, 30, 59, False),
        (10, 70, 60, True),
        (0, 0, 9999, False),
        (None, 0, float("inf"), True),
        (None, 10, 59, False),
        (None, 10, 60, True),
    ],
)
def test_it_is_told_when_work_begins_or_ends_and_seldom_in_between(
    told: int | None, wanted: int, silent: float, due: bool
) -> None:
    assert is_due(told, wanted, silent, PACE) is due


@given(st.none() | st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 9.99))
def test_never_more_often_than_every_ten_seconds(
    told: int | None, wanted: int, silent: float
) -> None:
    assert not is_due(told, wanted, silent, PACE)


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        (
            {"KUBERNETES_SERVICE_HOST": "10.43.0.1", "KUBERNETES_SERVICE_PORT": "443"},
            "https://10.43.0.1:443",
        ),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
        ({}, "https://kubernetes.default.svc:443"),
    ],
)
def test_the_api_server_is_where_kubernetes_says(environment: dict[str, str], url: str) -> None:
    assert api_server(environment) == url
