"""What the log says of an outage, and how often."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from bus.protocol import BusUnavailable
from master.metrics.loops import Loop, loop_failures_total
from master.outages import Failures, answer_within, said


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found


def a_loop() -> Failures:
    return Failures(Loop.SWEEP, structlog.get_logger(), part="one")


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), BusUnavailable()])
def test_an_error_without_words_is_called_by_its_name(error: Exception) -> None:
    assert said(error) == type(error).__name__


def test_an_outage_is_logged_when_it_begins_changes_and_ends(lines: list[Any]) -> None:
    failures = a_loop()
    before = loop_failures_total.labels("sweep")._value.get()
    for error in (TimeoutError(), TimeoutError(), BusUnavailable("lost"), TimeoutError()):
        failures.met(error)
    failures.over()
    failures.over()
    assert [(line["event"], line.get("dependency"), line.get("error")) for line in lines] == [
        ("sweep.outage", "database", "TimeoutError"),
        ("sweep.outage", "broker", "lost"),
        ("sweep.goes_on", None, None),
    ]
    assert {line["part"] for line in lines} == {"one"}
    assert loop_failures_total.labels("sweep")._value.get() == before + 4
    failures.met(TimeoutError())
    assert lines[-1]["event"] == "sweep.outage", "the next one begins anew"


def test_a_bug_is_logged_each_time_with_its_trace(lines: list[Any]) -> None:
    failures, bug = a_loop(), KeyError("x")
    failures.met(bug)
    failures.met(bug)
    failures.over()
    assert [(line["event"], line["exc_info"]) for line in lines] == [("sweep.failed", bug)] * 2


async def test_a_broker_that_does_not_answer_in_time_is_away() -> None:
    with pytest.raises(BusUnavailable, match=r"within 0\.01 s"):
        async with answer_within(0.01):
            await asyncio.Event().wait()
