"""The report says what was broken and how to see it again."""

import io
import json
from pathlib import Path

from rich.console import Console

from millrace.chaos.evidence import Evidence, Execution, Move, Request, Subtask
from millrace.chaos.outcome import Options, Outcome, Struck, percentile
from millrace.chaos.report import as_json, as_markdown, for_people, verdict
from millrace.chaos.visits import Errand, Visit

REPLAY = "millrace chaos --seed 5 --seconds 60 --masters 2 --workers 4 --clients 8"


def outcome() -> Outcome:
    made = Outcome(Options(seed=5), Path("/tmp/logs"))
    made.struck = [Struck(2.0, "worker-kill", "mill-1"), Struck(4.0, "worker-kill", "mill-2")]
    visit = Visit(Errand.STREAM, "Why?", 0.0, request="r", state="completed", seconds=1.5)
    made.evidence = Evidence(
        requests={"r": Request("r", "completed", "a", None, None, None)},
        subtasks={"s": Subtask("s", "r", "answer", "succeeded", 2, 1, "a", None, "Why?")},
        executions=[
            Execution("s", 1, "e1", "completed", applied=False),
            Execution("s", 2, "e2", "completed", applied=True),
            Execution("s", 2, "e3", "engine_busy", applied=False),
        ],
        visits=[visit],
    )
    return made


def shown(made: Outcome) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(for_people(made))
    return console.export_text()


def test_a_run_without_violations_says_so() -> None:
    assert verdict(outcome()) == "Every invariant held over 1 requests and 2 faults."
    assert REPLAY not in shown(outcome())


def test_a_violation_comes_with_its_time_and_with_the_command_that_replays_it() -> None:
    made = outcome()
    made.note({"I1": ["request r is lost"]}, at=7.04)
    made.note({"I1": ["request r is lost"]}, at=9.0)
    assert made.broken == 1
    for text in (shown(made), as_markdown(made)):
        assert "I1 at 7 s: request r is lost" in text
        assert REPLAY in text
    found = json.loads(json.dumps(as_json(made)))
    assert found["violations"] == 1
    assert found["replay"] == REPLAY
    assert found["invariants"]["I1"]["violations"] == [
        {"what": "request r is lost", "seen_at": 7.0}
    ]


def test_many_violations_of_one_kind_are_cut_short_for_people_only() -> None:
    made = outcome()
    made.note({"I1": [f"request {n} is lost" for n in range(30)]}, at=1.0)
    assert "and 25 more" in as_markdown(made)
    assert len(as_json(made)["invariants"]["I1"]["violations"]) == 30


def test_numbers_count_what_was_done_in_vain() -> None:
    numbers = outcome().numbers()
    assert numbers["silent_workers_given_up"] == 1
    assert numbers["needless_redrives"] == 0
    assert numbers["stale_results_refused"] == 1
    assert numbers["duplicate_executions"] == 1
    assert numbers["latency_p50_seconds"] == 1.5
    assert as_json(outcome())["faults"] == {"worker-kill": 2}


def test_work_that_is_taken_back_while_it_only_waits_is_counted() -> None:
    made = outcome()
    made.evidence.moves.append(Move("subtask", "waits", "queued", "ready", 2))
    assert made.numbers()["needless_redrives"] == 1


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([], 0.5) is None
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
