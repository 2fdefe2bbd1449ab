"""Each invariant is able to fail: from sound evidence, one record is spoilt at a time."""

from dataclasses import replace

import pytest

from millrace.chaos.evidence import (
    Evidence,
    Execution,
    Glance,
    Letter,
    Memory,
    Move,
    Overdue,
    Queue,
    Request,
    Subtask,
    Unpublished,
)
from millrace.chaos.invariants import INVARIANTS, MEMORY_MARGIN_BYTES, violations
from millrace.chaos.texts import pieces, steady_answer
from millrace.chaos.visits import Closing, Errand, StreamSeen, Visit

PROMPT = "Why 0-1?"
WAYWARD = "Why wayward 0-2?"
ANSWER = steady_answer(PROMPT)
URL = "http://127.0.0.1:1"


def sound() -> Evidence:
    """One streamed chat and one polled response, both answered."""
    stream = StreamSeen(URL, terminals=["stop"], done=1, closing=Closing.CLEAN, closed_at=10.0)
    chat = Visit(Errand.STREAM, PROMPT, 0.0, request="r1", streams=[stream], text=ANSWER)
    chat.state, chat.key = "completed", "key"
    poll = Visit(Errand.POLL, PROMPT, 0.0, request="r2", text=ANSWER, state="completed")
    poll.polled = ["queued", "in_progress", "completed"]
    seen = Evidence(visits=[chat, poll], calm_seconds=60.0, final=True)
    for number in ("1", "2"):
        request, subtask = f"r{number}", f"s{number}"
        seen.requests[request] = Request(request, "completed", ANSWER, None, None, None)
        seen.subtasks[subtask] = Subtask(
            subtask, request, "answer", "succeeded", 2, 1, ANSWER, None, PROMPT
        )
        seen.executions += [
            Execution(subtask, 1, "e1", "completed", applied=False),
            Execution(subtask, 2, "e2", "completed", applied=True),
        ]
        seen.moves += [
            Move("subtask", subtask, "queued", "running", 1),
            Move("subtask", subtask, "running", "ready", 2),
            Move("subtask", subtask, "ready", "succeeded", 2),
            Move("request", request, "running", "completed"),
        ]
    seen.queues = [Queue("results", 0, 2, 2), Queue("control.mill-1", 0, 1)]
    seen.glances = [Glance("/v1/requests/r1", 200, owner=True), Glance("/v1/requests/r1", 404)]
    seen.memory = [Memory("master-1", 100, 100 + MEMORY_MARGIN_BYTES)]
    seen.letters = [Letter("s1", 1)]
    return seen


def broken(seen: Evidence) -> set[str]:
    return {name for name, found in violations(seen).items() if found}


def chat(seen: Evidence) -> Visit:
    return seen.visits[0]


def stream(seen: Evidence) -> StreamSeen:
    return seen.visits[0].streams[0]


def alter_request(seen: Evidence, **changes: object) -> None:
    seen.requests["r1"] = replace(seen.requests["r1"], **changes)  # type: ignore[arg-type]


def alter_subtask(seen: Evidence, **changes: object) -> None:
    seen.subtasks["s1"] = replace(seen.subtasks["s1"], **changes)  # type: ignore[arg-type]


def test_sound_evidence_violates_nothing() -> None:
    assert broken(sound()) == set()


# --- I1 ------------------------------------------------------------------------------------------


def test_i1_an_accepted_request_that_is_not_stored() -> None:
    seen = sound()
    del seen.requests["r1"], seen.subtasks["s1"]
    seen.executions, seen.moves = seen.executions[2:], seen.moves[4:]
    seen.letters = []
    assert broken(seen) == {"I1"}


@pytest.mark.parametrize("state", ["accepted", "running", "expired"])
def test_i1_a_request_without_a_proper_end(state: str) -> None:
    seen = sound()
    alter_request(seen, state=state)
    assert "I1" in broken(seen)


def test_i1_a_client_that_never_learns_the_end() -> None:
    seen = sound()
    chat(seen).state = None
    assert broken(seen) == {"I1"}
    chat(seen).left = True
    assert broken(seen) == set()


def test_i1_a_failure_that_nobody_injected() -> None:
    seen = sound()
    alter_request(seen, state="failed", answer=None, error="internal_error")
    chat(seen).state, chat(seen).text = "failed", ""
    assert broken(seen) == {"I1"}
    alter_request(seen, error="engine_busy")
    assert broken(seen) == set()


def test_i1_a_process_that_dies_by_itself() -> None:
    seen = sound()
    seen.deaths = ["master-1.log ended with code 1"]
    assert broken(seen) == {"I1"}


# --- I2 ------------------------------------------------------------------------------------------


def test_i2_a_result_applied_twice() -> None:
    seen = sound()
    seen.executions[0] = replace(seen.executions[0], applied=True)
    assert broken(seen) == {"I2"}


def test_i2_a_success_without_a_result() -> None:
    seen = sound()
    seen.executions = seen.executions[2:]
    assert broken(seen) == {"I2"}


def test_i2_a_subtask_that_succeeds_twice_is_seen_during_the_run() -> None:
    seen = Evidence(moves=[Move("subtask", "s", "running", "succeeded", 1)] * 2)
    assert broken(seen) == {"I2"}


def test_i2_one_key_for_two_requests() -> None:
    seen = sound()
    seen.visits[1].key = "key"
    assert broken(seen) == {"I2"}


# --- I3 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminals", "done"),
    [([], 0), ([], 1), (["stop"], 0), (["stop", "stop"], 1), (["stop"], 2)],
)
def test_i3_a_stream_without_exactly_one_terminal_event(terminals: list[str], done: int) -> None:
    seen = sound()
    stream(seen).terminals, stream(seen).done = terminals, done
    assert broken(seen) == {"I3"}


def test_i3_a_stream_that_never_ends() -> None:
    seen = sound()
    stream(seen).closing = None
    assert broken(seen) == {"I3"}


def test_i3_a_bare_cut_is_a_violation_unless_that_master_was_killed_just_then() -> None:
    seen = sound()
    cut = StreamSeen(URL, done=0, closing=Closing.CUT, closed_at=10.0)
    chat(seen).streams = [cut]
    assert broken(seen) == {"I3"}
    for killed in ((URL, 1.0), ("http://127.0.0.1:2", 9.5), (URL, 20.0)):
        seen.killed = [killed]
        assert broken(seen) == {"I3"}
    seen.killed = [(URL, 9.5)]
    assert broken(seen) == set()


def test_i3_a_client_that_left_needs_no_terminal_event() -> None:
    seen = sound()
    chat(seen).streams = [StreamSeen(URL, done=0, closing=Closing.LEFT)]
    assert broken(seen) == set()


# --- I4, I5 --------------------------------------------------------------------------------------


def test_i4_text_that_was_shown_and_is_not_the_answer() -> None:
    seen = sound()
    chat(seen).text = ANSWER[:-1]
    assert broken(seen) == {"I4"}
    chat(seen).text, chat(seen).state, chat(seen).left = "something else", None, True
    assert broken(seen) == {"I4"}


@pytest.mark.parametrize("spoilt", [ANSWER[:-8], ANSWER + ANSWER, ""])
def test_i4_a_stored_result_that_the_engine_never_said(spoilt: str) -> None:
    seen = sound()
    alter_subtask(seen, text=spoilt)
    assert broken(seen) == {"I4"}


def test_i4_a_split_answer_that_is_not_made_of_its_parts() -> None:
    seen = sound()
    seen.visits.clear()
    parts = (("answer", "A wheel"),)
    alter_request(seen, answer=f"## A wheel\n\n{ANSWER}", sections=parts)
    assert broken(seen) == set()
    alter_request(seen, answer=f"## A stone\n\n{ANSWER}", sections=parts)
    assert broken(seen) == {"I4"}


def test_i4_what_a_client_could_not_make_sense_of() -> None:
    seen = sound()
    chat(seen).odd = ["text after the terminal event"]
    assert broken(seen) == {"I4"}


def test_i4_a_wayward_engine_may_contradict_what_was_shown_only_when_it_was_asked_again() -> None:
    first, second = "".join(pieces(WAYWARD, 1)), "".join(pieces(WAYWARD, 2))
    seen = sound()
    chat(seen).prompt, chat(seen).text = WAYWARD, first[:-30]
    alter_request(seen, answer=second)
    alter_subtask(seen, text=second, prompt=WAYWARD)
    assert broken(seen) == set()
    chat(seen).text = second[40:]
    assert broken(seen) == {"I4"}
    chat(seen).text = first
    alter_subtask(seen, attempt=1)
    seen.moves = [move for move in seen.moves if move.id != "s1"]
    assert broken(seen) == {"I4"}


def test_i5_words_of_an_earlier_call_after_those_of_a_later_one() -> None:
    first, second = pieces(WAYWARD, 1), pieces(WAYWARD, 2)
    seen = Evidence(visits=[Visit(Errand.STREAM, WAYWARD, 0.0)])
    seen.visits[0].text = "".join((*first[:2], *second[2:5], *first[5:]))
    assert broken(seen) == {"I5"}
    seen.visits[0].text = "".join((*first[:2], *second[2:]))
    assert broken(seen) == set()


def test_i5_an_attempt_that_goes_back() -> None:
    moves = [Move("subtask", "s", "ready", "running", attempt) for attempt in (2, 1)]
    assert broken(Evidence(moves=moves)) == {"I5"}


# --- I6 to I12 -----------------------------------------------------------------------------------


def test_i6_a_lease_that_is_over_for_long_although_all_is_calm() -> None:
    assert broken(Evidence(overdue=[Overdue("s", 30.0)], calm_seconds=30.0)) == {"I6"}
    assert broken(Evidence(overdue=[Overdue("s", 30.0)], calm_seconds=0.5)) == set()
    assert broken(Evidence(overdue=[Overdue("s", 0.5)], calm_seconds=30.0)) == set()


@pytest.mark.parametrize("has_row", [True, False])
def test_i7_what_is_due_and_not_published(has_row: bool) -> None:
    late = Unpublished("s", "running", 30.0, has_row)
    assert broken(Evidence(unpublished=[late], calm_seconds=30.0)) == {"I7"}
    assert broken(Evidence(unpublished=[late], calm_seconds=0.5)) == set()
    assert broken(Evidence(unpublished=[replace(late, late_seconds=0.1)], final=True)) == {"I7"}


def test_i7_an_outbox_row_that_outlives_its_request() -> None:
    seen = sound()
    seen.unpublished = [Unpublished("s1", "completed", 0.0)]
    assert broken(seen) == {"I7"}


def test_i8_open_work_that_lies_in_dead() -> None:
    seen = sound()
    alter_subtask(seen, state="queued")
    assert "I8" in broken(seen)


def test_i8_a_dead_letter_of_nobody() -> None:
    seen = sound()
    seen.letters = [Letter(None)]
    assert broken(seen) == {"I8"}


def test_i8_a_dead_row_without_a_reason() -> None:
    seen = sound()
    seen.executions = seen.executions[2:]
    alter_subtask(seen, state="dead")
    assert broken(seen) == {"I8"}
    alter_subtask(seen, state="dead", error="worker_lost")
    assert broken(seen) == set()


def test_i8_a_message_of_our_own_that_nobody_can_read() -> None:
    seen = sound()
    seen.quarantined = 1
    assert broken(seen) == {"I8"}


@pytest.mark.parametrize("status", [200, 403, 500])
def test_i9_another_tenant_learns_that_a_request_exists(status: int) -> None:
    seen = sound()
    seen.glances.append(Glance("/v1/requests/r2", status))
    assert broken(seen) == {"I9"}


def test_i9_proves_nothing_when_even_the_owner_sees_nothing() -> None:
    seen = sound()
    seen.glances = [Glance("/v1/requests/r1", 404, owner=True)]
    assert broken(seen) == {"I9"}


@pytest.mark.parametrize(
    "queue", [Queue("results", 1, 2, 2), Queue("results", 0, 1, 2), Queue("control.x", 3, 1)]
)
def test_i10_a_queue_that_does_not_drain_or_lacks_consumers(queue: Queue) -> None:
    seen = sound()
    seen.queues = [queue]
    assert broken(seen) == {"I10"}


def test_i11_a_master_that_grows() -> None:
    seen = sound()
    seen.memory = [Memory("master-1", 100, 101 + MEMORY_MARGIN_BYTES)]
    assert broken(seen) == {"I11"}


@pytest.mark.parametrize(
    "move",
    [
        Move("request", "r", "completed", "cancelled"),
        Move("request", "r", "failed", "gone"),
        Move("subtask", "s", "dead", "ready", 1),
    ],
)
def test_i12_a_row_that_leaves_a_terminal_state(move: Move) -> None:
    assert broken(Evidence(moves=[move])) == {"I12"}


def test_i12_a_client_that_was_told_another_end() -> None:
    seen = sound()
    seen.visits[1].polled = ["completed", "failed"]
    assert broken(seen) == {"I12"}
    seen = sound()
    alter_request(seen, state="cancelled")
    assert broken(seen) == {"I12"}


@pytest.mark.parametrize("name", INVARIANTS)
def test_every_invariant_has_a_test_that_breaks_it(name: str) -> None:
    assert any(test.startswith(f"test_{name.lower()}_") for test in globals())
