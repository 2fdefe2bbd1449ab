"""Histograms can show what is promised: buckets are narrow where the targets of DESIGN are."""

import pytest
from prometheus_client import Histogram

from master.metrics import chats, searches

EIGHT, FIFTEEN, HUNDRED = 0.008, 0.015, 0.1


def buckets(histogram: Histogram) -> list[float]:
    return [float(bound) for bound in histogram._upper_bounds]


@pytest.mark.parametrize(
    ("histogram", "target"),
    [
        (chats.queue_seconds, EIGHT),
        (chats.first_text_seconds, EIGHT),
        (searches.retrieval_stage_seconds, FIFTEEN),
        (chats.stop_seconds, HUNDRED),
    ],
)
def test_a_target_is_a_bound(histogram: Histogram, target: float) -> None:
    assert target in buckets(histogram)


@pytest.mark.parametrize(
    ("histogram", "seconds"),
    [
        (chats.queue_seconds, 0.003),
        (chats.first_text_seconds, 0.006),
        (searches.retrieval_stage_seconds, 0.012),
        (chats.stop_seconds, 0.04),
    ],
)
def test_a_median_far_below_a_second_is_shown_about_right(
    histogram: Histogram, seconds: float
) -> None:
    """Prometheus shows the middle of the bucket that all of them are in."""
    upper = next(bound for bound in buckets(histogram) if bound >= seconds)
    lower = max((bound for bound in buckets(histogram) if bound < seconds), default=0.0)
    assert (lower + upper) / 2 == pytest.approx(seconds, rel=0.25)
