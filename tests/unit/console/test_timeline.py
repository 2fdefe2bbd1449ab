"""Timelines of subtasks."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from master.console.timeline import WIDTH, Phase, draw, spans_of, ticks_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND = UUID(int=1), UUID(int=2)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else BEGAN + timedelta(seconds=seconds)


def row(state: str = "succeeded", **times: Any) -> dict[str, Any]:
    """A subtask; times in seconds after the request came."""
    names = ("ready_at", "queued_at", "started_at", "finished_at")
    made: dict[str, Any] = {name: at(times.pop(name, None)) for name in names}
    given_ = {
        "id": UUID(int=9),
        "step": "answer",
        "state": state,
        "attempt": 1,
        "execution": FIRST,
        "depends_on": [],
        "losses": 0,
        "first_token_seconds": None,
    }
    return made | given_ | times


def line(execution: UUID, end: float, took: float, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """An execution in the ledger."""
    made = {"subtask_id": UUID(int=9), "execution": execution, "attempt": attempt}
    return made | {"finished_at": at(end), "engine_seconds": took, "outcome": "completed"} | more


def phases(subtask: dict[str, Any], *ended: dict[str, Any], now: float = 10) -> list[Any]:
    moment = at(now)
    assert moment is not None
    found = spans_of(BEGAN, moment, subtask, ended)
    return [(span.phase.value, round(span.start, 3), round(span.end, 3)) for span in found]


DONE = {"ready_at": 0, "queued_at": 1, "started_at": 2, "finished_at": 5}


def test_a_pause_before_the_next_try_is_drawn_as_far_as_it_has_come() -> None:
    again = row("ready", ready_at=190, attempt=2)
    failed = line(UUID(int=8), 8, 6, outcome="engine_busy")
    before = [("waiting", 0, 2), ("failed", 2, 8)]
    assert phases(again, failed) == [*before, ("waiting", 8, 10)]
    dropped = row("cancelled", ready_at=190, attempt=2, finished_at=9)
    assert phases(dropped, failed) == [*before, ("waiting", 8, 9)]


def test_an_answer_waits_is_queued_reads_and_writes() -> None:
    assert phases(row(**DONE, first_token_seconds=1), line(FIRST, 5, 3)) == [
        ("waiting", 0, 1),
        ("queued", 1, 2),
        ("reading", 2, 3),
        ("writing", 3, 5),
    ]


def test_a_worker_that_began_before_the_publish_was_marked_is_not_shown_as_waiting() -> None:
    fast = row(ready_at=0, queued_at=3, started_at=1, finished_at=4, first_token_seconds=1)
    assert phases(fast) == [("waiting", 0, 1), ("reading", 1, 2), ("writing", 2, 4)]


def test_what_builds_on_others_is_blocked_until_they_have_ended() -> None:
    assert phases(row("blocked"), now=4) == [("blocked", 0, 4)]
    later = row("queued", ready_at=3, queued_at=4, depends_on=["a"])
    assert phases(later, now=6) == [("blocked", 0, 3), ("waiting", 3, 4), ("queued", 4, 6)]


def test_what_runs_goes_on_until_now() -> None:
    assert phases(row("running", ready_at=0, queued_at=0, started_at=1), now=7)[-1] == (
        "running",
        1,
        7,
    )


def test_a_failed_attempt_stays_visible_before_the_one_that_succeeded() -> None:
    subtask = row(
        ready_at=4, queued_at=5, started_at=6, finished_at=8,
        attempt=2, execution=SECOND, first_token_seconds=1,
    )  # fmt: skip
    ended = line(FIRST, 3, 2, outcome="engine_busy"), line(SECOND, 8, 2, attempt=2)
    assert phases(subtask, *ended) == [
        ("waiting", 0, 1),
        ("failed", 1, 3),
        ("waiting", 3, 4),
        ("waiting", 4, 5),
        ("queued", 5, 6),
        ("reading", 6, 7),
        ("writing", 7, 8),
    ]


def test_the_time_of_a_worker_that_was_lost_is_shown_as_failed() -> None:
    again = {"ready_at": 4, "queued_at": 4, "started_at": 5, "attempt": 2, "losses": 1}
    assert phases(row("running", **again), now=6) == [
        ("failed", 0, 4),
        ("queued", 4, 5),
        ("running", 5, 6),
    ]


def test_a_result_that_came_too_late_is_told_apart_from_a_failure() -> None:
    late = line(SECOND, 2, 1, outcome="completed")
    assert ("stopped", 1, 2) in phases(row(**DONE, first_token_seconds=1), late)
    stopped = row("cancelled", ready_at=0, queued_at=0, started_at=1, finished_at=3)
    assert phases(stopped)[-1] == ("stopped", 1, 3)
    assert phases(stopped, line(FIRST, 3, 2, outcome="cancelled"))[-1] == ("stopped", 1, 3)
    dead = row("dead", ready_at=0, queued_at=0, started_at=1, finished_at=3)
    assert phases(dead)[-1] == ("failed", 1, 3)


seconds = st.one_of(st.none(), st.floats(-5, 50, allow_nan=False))


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(("ready_at", "queued_at", "started_at", "finished_at"), seconds)
    ),
    seconds,
    st.lists(st.tuples(st.floats(-5, 50), st.floats(-1, 99)), max_size=4),
)
def test_bars_follow_each_other_inside_the_picture(
    times: dict[str, Any], first: float | None, ended: list[tuple[float, float]]
) -> None:
    """Whatever clocks and half-written rows say."""
    subtask = row(**times, first_token_seconds=first)
    lines = [line(UUID(int=n + 5), end, took) for n, (end, took) in enumerate(ended)]
    now = at(60)
    assert now is not None
    drawing = draw(BEGAN, now, [subtask], lines, {})
    [lane] = drawing.lanes
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH + 0.11 for bar in lane.bars)
    spans = [bar.span for bar in lane.bars]
    assert all(span.start <= span.end for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))


@given(st.floats(0.001, 1e6))
def test_an_axis_has_a_few_round_marks_from_zero(length: float) -> None:
    ticks = ticks_of(length)
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 7
    assert ticks[-1] <= length * 1.000001


def test_the_picture_names_the_phases_that_are_in_it() -> None:
    now = at(9)
    assert now is not None
    drawing = draw(BEGAN, now, [row(**DONE, first_token_seconds=1)], [], {"answer": "The answer"})
    assert list(drawing.phases) == [Phase.WAITING, Phase.QUEUED, Phase.READING, Phase.WRITING]
    assert drawing.lanes[0].title == "The answer"
    assert "queued 1.0 s" in drawing.lanes[0].words
    assert draw(BEGAN, now, [], [], {}).lanes == []


def test_an_attempt_that_failed_at_once_is_not_covered_by_what_follows() -> None:
    again = row(attempt=2, ready_at=1, queued_at=1.5, started_at=2, finished_at=100)
    failed = [line(UUID(int=n), 0.01 * n, 0.0, outcome="engine_busy") for n in (3, 4)]
    picture = draw(BEGAN, BEGAN, [again], failed, {})
    bars = picture.lanes[0].bars
    assert [bar.span.phase for bar in bars].count(Phase.FAILED) == 2
    for bar, following in pairwise(bars):
        assert bar.width >= 3
        assert following.x >= bar.x + bar.width - 0.11  # places are rounded
