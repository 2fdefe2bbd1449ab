"""What becomes of a failed attempt."""

from hypothesis import given
from hypothesis import strategies as st

from master.retry import (
    LONGEST_DELAY_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    Again,
    GiveUp,
    decide,
    decide_on_loss,
)
from master.settings import MasterSettings
from queue_schemas.messages import ErrorKind
from queue_schemas.states import SubtaskState


def test_a_permanent_failure_is_never_tried_again() -> None:
    assert decide(ErrorKind.PERMANENT, 1, max_attempts=5) == GiveUp(SubtaskState.FAILED)


def test_a_transient_failure_waits_longer_each_time() -> None:
    waits = [
        decide(ErrorKind.TRANSIENT, attempt, max_attempts=9, chance=1.0) for attempt in (1, 2, 3)
    ]
    assert waits == [Again(1.0), Again(2.0), Again(4.0)]


def test_an_engine_that_names_a_time_is_given_it() -> None:
    decision = decide(ErrorKind.TRANSIENT, 1, max_attempts=5, retry_after_seconds=7.0, chance=0.0)
    assert decision == Again(7.0)


def test_an_engine_that_names_an_hour_is_asked_again_while_the_request_lives() -> None:
    most, lives = (
        MasterSettings.model_fields[n].default for n in ("max_attempts", "request_seconds")
    )
    waits = [
        decide(ErrorKind.TRANSIENT, attempt, max_attempts=most, retry_after_seconds=hour)
        for attempt in range(1, most)
        for hour in (3600.0, float("inf"))
    ]
    assert set(waits) == {Again(LONGEST_RETRY_AFTER_SECONDS)}
    assert (most - 1) * LONGEST_RETRY_AFTER_SECONDS < lives


def test_the_last_attempt_ends_dead() -> None:
    assert decide(ErrorKind.TRANSIENT, 5, max_attempts=5) == GiveUp(SubtaskState.DEAD)


def test_poison_gets_one_more_chance() -> None:
    assert isinstance(decide(ErrorKind.POISON, 1, max_attempts=5), Again)
    assert decide(ErrorKind.POISON, 2, max_attempts=5) == GiveUp(SubtaskState.DEAD)


def test_the_third_lost_worker_makes_a_subtask_poison() -> None:
    decisions = [decide_on_loss(n + 1, n, max_attempts=5, max_losses=3) for n in range(3)]
    assert decisions == [Again(0.0), Again(0.0), GiveUp(SubtaskState.DEAD)]


@given(
    st.sampled_from([ErrorKind.TRANSIENT, ErrorKind.POISON]),
    st.integers(1, 50),
    st.integers(1, 50),
    st.floats(0, 1),
)
def test_waits_are_bounded_and_attempts_end(
    kind: ErrorKind, attempt: int, most: int, chance: float
) -> None:
    decision = decide(kind, attempt, max_attempts=most, chance=chance)
    if isinstance(decision, Again):
        assert attempt < most
        assert 0 <= decision.delay_seconds <= LONGEST_DELAY_SECONDS
