"""What a terminal shows, at the widths that people have."""

from typing import Any

import pytest
from rich.console import Console, RenderableType

from millrace import models_file
from millrace.doctor import Finding, Verdict
from millrace.known import Fleet
from millrace.show import numbers
from millrace.show.answer import AnswerText
from millrace.show.bill import bill
from millrace.show.checks import checks
from millrace.show.fleet import fleet, slots_busy
from millrace.show.models import registry_table, served_table
from millrace.show.plan import PlanView
from queue_schemas.states import SubtaskState
from tests.integration.cli.fake_master import COMPLETED, RUNNING, record, subtask

LONG = "an-extremely-long-name-that-somebody-gave-to-their-favourite-fine-tune:70b-instruct-q4_K_M"


def shown(renderable: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, height=30, record=True, force_terminal=True, file=_Nowhere())
    console.print(renderable)
    return console.export_text().splitlines()


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def plan(request: dict[str, Any], now: float = 3.2, rows: int = 20) -> RenderableType:
    view = PlanView(started=0.0)
    view.update(request, now=1.0)
    return view.render(now, rows)


def hostile_request() -> dict[str, Any]:
    states = [
        subtask(f"part-{i}", LONG, state, model=LONG, attempt=11, worker=LONG, cost=1234.5)
        for i, state in enumerate(SubtaskState)
    ]
    broken = subtask("x", "日本語" * 30, "failed", error={"code": LONG, "message": LONG * 4})
    return record("failed", [*states, broken])


WORKERS = [
    {
        "name": LONG,
        "model": LONG,
        "slots": 128,
        "running": 127,
        "state": "draining",
        "last_seen_seconds": 12345.0,
        "host": LONG,
        "release": "0.1.0",
    }
]
QUEUES = [
    {"model": LONG, "queue": f"subtasks.{LONG}", "ready": 100_000, "consumers": 1000}
    | {"db_ready": 1_000_000, "db_queued": 100_000, "db_running": 1000, "db_delayed": 40_000},
    {"model": "m", "queue": "subtasks.m", "ready": None, "consumers": None}
    | {"db_ready": 0, "db_queued": 0, "db_running": 0},
]
FINDINGS = [
    Finding("Embedded Postgres", verdict, f"{LONG} at {LONG}", f"Install {LONG}.")
    for verdict in Verdict
]
NOT_READY = {"status": "not_ready", "checks": {"database": "TimeoutError: no answer", "b": "ok"}}


def everything(width: int) -> dict[str, RenderableType]:
    registry = models_file.parse(
        f"models: [{{name: '{LONG}', provider: extractive, capabilities: [chat, code, plan]}}]",
        LONG,
        {},
    )
    return {
        "plan": plan(hostile_request()),
        "no plan yet": PlanView(0.0).render(1.0),
        "bill": bill(hostile_request(), width),
        "fleet": fleet(Fleet(NOT_READY, WORKERS, QUEUES), f"http://{LONG}", width, LONG),
        "no worker": fleet(Fleet(NOT_READY, [], QUEUES), "http://m", width),
        "nothing": fleet(Fleet(NOT_READY, None, None, False, {LONG: LONG}), "http://m", width),
        "models": registry_table(registry, LONG, width),
        "served": served_table([{"id": LONG}, {"id": "millrace/split"}]),
        "checks": checks(FINDINGS),
    }


@pytest.mark.parametrize("width", [60, 80, 130])
@pytest.mark.parametrize("what", everything(80))
def test_no_line_is_wider_than_the_terminal(what: str, width: int) -> None:
    lines = shown(everything(width)[what], width)
    assert lines
    console = Console(width=width)
    assert max(console.measure(line).maximum for line in lines if line) <= width


def test_the_plan_shows_every_subtask_with_its_state() -> None:
    lines = shown(plan(RUNNING))
    assert lines[0].startswith("split · running · 1 of 4 subtasks · 3.2 s")
    assert [line.split()[0] for line in lines[1:]] == ["├─", "├─", "├─", "└─"]
    assert "✓ What is a quorum queue" in lines[1]
    assert lines[1].rstrip().endswith("4.2 s")
    assert lines[2].rstrip().endswith("running 2.2 s · try 2")
    assert lines[3].rstrip().endswith("queued")
    assert lines[4].rstrip().endswith("after part-1, part-2")


def test_a_question_that_waits_shows_behind_how_many_and_for_how_long() -> None:
    parts = [subtask("part-1", "What is a mill?", "queued", total_seconds=None)]
    place = {"position": 4, "expected_start_seconds": 12.3}
    line = shown(plan(record("accepted", parts, queue=place)))[0]
    assert line.startswith(
        "split · accepted · 0 of 1 subtask · waiting behind 3 subtasks, about 12"
    )
    unknown = {"position": 2, "expected_start_seconds": None}
    line = shown(plan(record("accepted", parts, queue=unknown)))[0]
    assert "· waiting behind 1 subtask · 3.2 s" in line
    first = {"position": 1, "expected_start_seconds": 0.0}
    assert "behind" not in shown(plan(record("accepted", parts, queue=first)))[0]


def test_a_plan_that_does_not_fit_shows_what_runs_and_counts_the_rest() -> None:
    parts = [subtask(f"part-{i}", f"Part {i}") for i in range(40)]
    parts[30] = subtask("part-30", "The running one", "running")
    parts[35] = subtask("part-35", "The waiting one", "queued")
    lines = shown(plan(record("running", parts), rows=6))
    assert len(lines) == 7
    assert any("The running one" in line for line in lines)
    assert any("The waiting one" in line for line in lines)
    assert "and 35 more" in lines[-1]


def test_a_state_of_a_newer_master_is_shown_as_it_is() -> None:
    assert "paused" in shown(plan(record("running", [subtask("a", "A", "paused")])))[1]


def test_the_bill_has_times_tokens_cost_and_totals() -> None:
    text = " ".join(" ".join(shown(bill(COMPLETED, 80))).split())
    for fact in (
        "12 ms 310 ms 4.2 s 1,234 321 0.0012",
        "(try 2)",
        "completed in 4.4 s · 2 subtasks · 3,110 tokens · 7.8 s engine · USD 0.0024",
        "1.9 times as fast as one part after the other · 1,200 prompt tokens more",
        "split: two questions that do not need each other",
        f"request {COMPLETED['id']}",
    ):
        assert fact in text


def test_a_bill_without_prices_has_no_cost_column() -> None:
    free = {**COMPLETED, "usage": {**COMPLETED["usage"], "cost": 0.0}}
    assert "Cost" not in shown(bill(free, 80))[1]
    assert "Cost" in shown(bill(COMPLETED, 80))[1]


def test_the_bill_of_a_failure_says_why() -> None:
    failed = subtask(
        "a", "A", "dead", error={"kind": "poison", "code": "x", "message": "out of it"}
    )
    text = "\n".join(shown(bill(record("failed", [failed]), 80)))
    assert "A: out of it" in text
    assert "failed in" in text


def test_the_fleet_names_what_is_missing() -> None:
    text = "\n".join(shown(fleet(Fleet(NOT_READY, [], QUEUES), "http://m", 80)))
    assert "http://m is not ready · database: TimeoutError: no answer" in " ".join(text.split())
    assert "Start one: millrace worker --model" in text
    assert "no queue" in text


def test_a_remedy_stands_below_what_is_wrong_only() -> None:
    text = "\n".join(shown(checks([Finding("A", Verdict.FAIL, "broken", "Mend it.")])))
    assert "✗ A broken" in text
    assert "→ Mend it." in text
    assert "1 problem to mend." in text
    fine = "\n".join(shown(checks([Finding("A", Verdict.OK, "fine", "Mend it.")])))
    assert "Mend" not in fine


SECONDS = [
    (None, "-"),
    (0.0, "0 ms"),
    (0.32, "320 ms"),
    (0.9994, "999 ms"),
    (0.9996, "1.0 s"),
    (4.21, "4.2 s"),
    (9.96, "10 s"),
    (99.4, "99 s"),
    (185.0, "3m 05s"),
    (3599.0, "59m 59s"),
    (7980.0, "2h 13m"),
]


@pytest.mark.parametrize(("value", "text"), SECONDS)
def test_seconds_are_rounded_for_people(value: float | None, text: str) -> None:
    assert numbers.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (0.00001, "<0.0001"), (0.0012, "0.0012"), (1234.5, "1,234.50")],
)
def test_small_prices_are_not_rounded_to_nothing(value: float | None, text: str) -> None:
    assert numbers.cost(value) == text


def test_an_answer_in_pieces_gives_the_same_lines_as_in_one() -> None:
    answer = "# T\n\nA **b** `c` [1]\n```py\n**x**\n```\nend"
    whole = AnswerText()
    expected = [*whole.feed(answer), *whole.close()]
    pieces = AnswerText()
    got = [line for letter in answer for line in pieces.feed(letter)] + pieces.close()
    assert got == expected
    assert [line.plain for line in got] == ["T", "", "A b c [1]", "```py", "**x**", "```", "end"]


def test_an_answer_cannot_steer_the_terminal() -> None:
    [line] = AnswerText().feed("a\x1b[2Jb\x07\n")
    assert "\x1b" not in line.plain
    assert line.plain == "a\ufffd[2Jb\ufffd"


def test_slots_of_workers_that_leave_are_not_counted() -> None:
    live = {"slots": 4, "running": 1, "state": "live"}
    assert slots_busy([live, live, live | {"state": "draining"}]) == "2 of 8 slots busy"


def test_what_pauses_is_told_apart_from_what_waits() -> None:
    ready = {"status": "ready", "checks": {}}
    waits = QUEUES[1] | {"model": "mill", "db_ready": 2, "db_delayed": 3}
    assert any(
        "3 to be tried later" in line
        for line in shown(fleet(Fleet(ready, [], [waits]), "http://m", 80))
    )
    calm = waits | {"db_delayed": 0}
    assert "later" not in "".join(shown(fleet(Fleet(ready, [], [calm]), "http://m", 80)))
