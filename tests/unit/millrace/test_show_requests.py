"""Requests in a terminal: the table, the timeline and `millrace top`, at the widths people have."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from millrace.show.requests import request_page, requests_table
from millrace.show.timeline import Phase, Piece, bar, lanes, timeline
from millrace.show.top import Look, Order, Top, shares, slots, sparkline, totals
from tests.integration.cli.fake_master import record, subtask
from tests.integration.cli.test_requests_command import entry
from tests.integration.cli.test_status import QUEUE, WORKER
from tests.unit.millrace.test_show import LONG, shown

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: float) -> str:
    return (BEGAN + timedelta(seconds=second)).isoformat()


def attempt(number: int, end: float, **changes: Any) -> dict[str, Any]:
    return {
        "attempt": number,
        "outcome": "completed",
        "applied": True,
        "engine_seconds": 2.0,
        "first_token_seconds": 0.5,
        "finished_at": at(end),
    } | changes


RETRIED = subtask(
    "part-1",
    "Quorum queues",
    attempt=2,
    ready_at=at(3),
    started_at=at(4),
    finished_at=at(6),
    total_seconds=3.0,
    attempts=[attempt(1, 2, outcome="engine_busy"), attempt(2, 6)],
)
WRITES = subtask(
    "part-2", "Indexes", "running", ready_at=at(0), started_at=at(1), total_seconds=None
)
BLOCKED = subtask("merge", "Synthesis", "blocked", kind="synthesis", total_seconds=None)


def pieces(*parts: dict[str, Any], now: float = 8.0) -> list[list[tuple[str, float, float]]]:
    rows = lanes(record("running", list(parts)), BEGAN + timedelta(seconds=now))
    return [[(p.phase.name, p.begin, p.end) for p in row.pieces] for row in rows]


def test_each_attempt_has_a_lane_of_what_it_did_when() -> None:
    assert pieces(RETRIED, WRITES, BLOCKED) == [
        [("WAITS", 3.0, 4.0), ("READS", 4.0, 4.5), ("WRITES", 4.5, 6.0)],
        [("WAITS", 0.0, 0.0), ("FAILED", 0.0, 2.0)],
        [("WAITS", 0.0, 1.0), ("READS", 1.0, 8.0)],
        [],
    ]


def test_an_attempt_that_came_too_late_did_not_count() -> None:
    late = RETRIED | {"attempts": [attempt(1, 5, applied=False), attempt(2, 6)]}
    assert pieces(late)[1] == [("WAITS", 0.0, 3.0), ("IN_VAIN", 3.0, 5.0)]


def test_a_first_attempt_waits_for_what_its_step_needs() -> None:
    parts = [subtask(f"part-{n}", "Part", finished_at=at(n)) for n in (1, 2)]
    merge = RETRIED | {"step": "merge", "kind": "synthesis"}
    merge |= {"attempts": [attempt(1, 5, outcome="engine_busy"), attempt(2, 6)]}
    assert pieces(*parts, merge)[-1] == [("WAITS", 2.0, 3.0), ("FAILED", 3.0, 5.0)]


def test_what_waits_waits_until_now() -> None:
    waits = subtask("part-1", "Why?", "queued", ready_at=at(1), total_seconds=None)
    assert pieces(waits, now=5) == [[("WAITS", 1.0, 5.0)]]


def test_what_pauses_before_its_next_try_waits_for_nobody_yet() -> None:
    pauses = subtask("part-1", "Why?", "ready", ready_at=at(190), total_seconds=None)
    assert pieces(pauses, now=5) == [[("WAITS", 5.0, 5.0)]]


def test_a_bar_shows_what_took_any_time_at_all() -> None:
    line = [
        Piece(Phase.WAITS, 0, 4),
        Piece(Phase.READS, 4, 4.001),
        Piece(Phase.WRITES, 4.001, 9.999),
        Piece(Phase.FAILED, 10, 10),
    ]
    assert bar(line, 10.0, 10).plain == "····██████"
    assert bar(line[:2], 10.0, 10).plain == "····░     "
    assert bar([Piece(Phase.FAILED, 99, 100)], 10.0, 4).plain == "   ▒"
    assert bar([], 1.0, 3).plain == "   "


def test_a_timeline_in_80_columns_and_in_few() -> None:
    request = record("running", [RETRIED, WRITES, BLOCKED])
    now = BEGAN + timedelta(seconds=8)
    lines = shown(timeline(request, now, 80))
    assert "✓ Quorum queues" in lines[0]
    assert "············" not in lines[0]
    assert "····░░██████" in lines[0]
    assert "▒▒▒▒▒▒▒▒" in lines[1]
    assert lines[1].startswith("  ✗ try 1: engine_busy")
    assert lines[3].startswith("· Synthesis (after part-1, part-")
    assert lines[-1].split() == [
        *("·", "waits", "░", "until", "the", "first", "word", "█", "writes", "▒", "failed")
    ]
    assert max(map(len, lines)) <= 80
    assert "█" not in "".join(shown(timeline(request, now, 50), 50))


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_hostile_names_break_no_line(width: int) -> None:
    hostile = RETRIED | {"title": "日本語\x1b[2J\n" * 30, "model": LONG, "worker": LONG}
    request = record("failed", [hostile] * 3, error={"code": LONG}, answer="\x1b[2Jno\n")
    page = request_page(request, BEGAN + timedelta(seconds=8), width, answer=True)
    table = requests_table([entry("0" * 36, question=LONG, model=LONG, strategy=LONG)], width)
    for each in (page, table):
        lines = shown(each, width)
        assert "\x1b" not in "".join(lines)
        assert max(Console().measure(line).maximum for line in lines) <= width


def frame(top: Top, width: int = 80, height: int = 30) -> list[str]:
    return shown(top.render("12:00:00", width, height), width)


def look(*queues: dict[str, Any], workers: int = 1) -> Look:
    ready = {"status": "ready", "checks": {"database": "ok"}}
    return Look(ready, [WORKER] * workers, queues or [QUEUE], requests=[entry("0" * 36)])


def test_queues_have_a_curve_and_can_be_sorted_by_depth() -> None:
    top = Top("http://mill")
    for depth in (0, 10, 20):
        shallow = QUEUE | {"model": "shallow", "db_ready": 1, "db_queued": 0}
        top.take(look(shallow, QUEUE | {"db_ready": depth, "db_queued": 0}))
    text = "\n".join(frame(top))
    assert "▁▅█" in text
    assert text.index("shallow") < text.index("codellama")
    top.order = Order.DEPTH
    text = "\n".join(frame(top))
    assert text.index("codellama") < text.index("shallow")


def test_what_does_not_fit_is_counted() -> None:
    top = Top("http://mill")
    top.take(look(*[QUEUE | {"model": f"m{n}"} for n in range(40)], workers=30))
    lines = frame(top, height=30)
    assert len(lines) <= 30
    assert any("Model (and " in line for line in lines)
    assert any("Worker (and " in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("height", "workers"), [(24, True), (15, True), (9, True), (7, False)])
def test_in_a_low_terminal_requests_have_a_row_before_blank_lines_and_workers_do(
    height: int, workers: bool
) -> None:
    top = Top("http://mill")
    top.take(look(*[QUEUE | {"model": f"m{n}"} for n in range(9)], workers=9))
    lines = frame(top, width=60, height=height)
    assert len(lines) <= height
    assert any(line.strip().startswith("00000000") for line in lines)
    assert any("Worker (and " in line for line in lines) == workers


def test_requests_have_their_question_where_there_is_room() -> None:
    top, seen = Top("http://mill"), look()
    asked = entry("0" * 36, question="Why do wheels turn?")
    top.take(replace(seen, requests=[asked]))
    assert "Why do wheels turn?" in "".join(frame(top, width=120))
    assert "Why do wheels turn?" not in "".join(frame(top, width=80))


def test_an_older_master_lists_no_requests_and_one_that_is_away_is_named() -> None:
    top = Top("http://mill")
    assert len(frame(top)) == 1
    seen = look()
    top.take(replace(seen, requests=None))
    top.problem = "cannot reach the master\nat all"
    lines = frame(top)
    assert "cannot reach the master at all" in lines[1]
    assert "Strategy" not in "".join(lines)


@pytest.mark.parametrize("width", [30, 50, 72, 100, 160])
def test_narrow_terminals_get_less(width: int) -> None:
    top = Top("http://mill")
    queue = QUEUE | {"model": LONG, "window": 16}
    worker = WORKER | {"name": LONG, "slots": 64}
    top.take(Look({}, [worker], [queue], requests=[entry("0" * 36)]))
    assert max(map(len, frame(top, width))) <= width


def test_totals_are_of_the_whole_installation() -> None:
    assert totals(look(QUEUE, QUEUE | {"ready": None}, workers=2)).plain == (
        "12 at the broker · 240 in the database · 2 running · 2 workers · 2 of 4 slots busy"
    )


def test_what_is_not_known_any_more_stays_as_it_was() -> None:
    top, why = Top("http://mill"), "the database does not answer"
    top.take(replace(look(QUEUE | {"ready": None}), broker_answers=False))
    away = dict.fromkeys(("queues", "workers", "requests"), why)
    top.take(Look({}, None, None, unknown=away))
    text = " ".join(" ".join(frame(top)).split())
    assert f"trying again: {why}" in text
    assert "- at the broker · 120 in the database" in text
    assert "no queue" not in text
    assert "00000000" in text


def test_what_was_never_known_is_not_made_up() -> None:
    top = Top("http://mill")
    top.take(Look({}, None, None, unknown={"queues": "no answer in time", "workers": "no key"}))
    lines = frame(top, width=120)
    assert "no answer in time: queues are not known; no key: workers are not known" in lines[1]
    assert "0 " not in "".join(lines[2:])


def test_a_curve_begins_at_nothing_and_ends_at_the_deepest() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 1, 50, 100]) == "▁▂▅█"


def test_tables_share_the_lines_that_there_are() -> None:
    assert shares(30, 5, 5, 5) == (5, 5, 5)
    assert shares(30, 2, 50, 50) == (2, 14, 14)
    assert shares(3, 50, 50, 50) == (1, 1, 1)
    assert slots(2, 3).plain == "▮▮▯"
    assert slots(9, 12).plain == "9/12"
