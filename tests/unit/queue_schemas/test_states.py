"""The move tables: complete, reachable, and exactly the states of the design."""

from collections.abc import Mapping
from enum import StrEnum

import pytest

from queue_schemas.states import (
    DOCUMENT_MOVES,
    REQUEST_MOVES,
    REQUEST_TERMINAL,
    RULE_MOVES,
    SUBTASK_MOVES,
    SUBTASK_TERMINAL,
    DocumentState,
    RequestState,
    RuleState,
    SubtaskState,
    drawing,
    sources,
)

Moves = Mapping[StrEnum, frozenset[StrEnum]]

both = pytest.mark.parametrize(
    ("states", "moves"),
    [(RequestState, REQUEST_MOVES), (SubtaskState, SUBTASK_MOVES)],
    ids=["request", "subtask"],
)

every = pytest.mark.parametrize(
    ("states", "moves"),
    [
        (RequestState, REQUEST_MOVES),
        (SubtaskState, SUBTASK_MOVES),
        (DocumentState, DOCUMENT_MOVES),
        (RuleState, RULE_MOVES),
    ],
    ids=["request", "subtask", "document", "rule"],
)


def reachable(moves: Moves, start: StrEnum) -> set[StrEnum]:
    found, waiting = {start}, [start]
    while waiting:
        new = moves[waiting.pop()] - found
        found |= new
        waiting += new
    return found


@every
def test_every_state_has_an_entry(states: type[StrEnum], moves: Moves) -> None:
    assert set(moves) == set(states)


@every
def test_every_state_is_reached_from_the_first(states: type[StrEnum], moves: Moves) -> None:
    assert reachable(moves, next(iter(states))) == set(states)


@both
def test_every_state_leads_to_an_end(states: type[StrEnum], moves: Moves) -> None:
    for state in states:
        assert any(not moves[end] for end in reachable(moves, state)), state


@every
def test_sources_is_the_inverse_of_the_table(states: type[StrEnum], moves: Moves) -> None:
    there = {(state, target) for state, targets in moves.items() for target in targets}
    back = {(state, target) for target in states for state in sources(moves, target)}
    assert back == there


@both
def test_nothing_leads_back_to_the_first_state(states: type[StrEnum], moves: Moves) -> None:
    assert sources(moves, next(iter(states))) == frozenset()


def test_a_request_ends_in_one_of_four_ways() -> None:
    assert {*REQUEST_TERMINAL} == {"completed", "failed", "cancelled", "expired"}


def test_a_subtask_ends_in_one_of_five_ways() -> None:
    assert {*SUBTASK_TERMINAL} == {"succeeded", "failed", "cancelled", "skipped", "dead"}


def test_any_open_request_can_be_cancelled_and_can_expire() -> None:
    unfinished = set(RequestState) - REQUEST_TERMINAL
    assert sources(REQUEST_MOVES, RequestState.CANCELLED) == unfinished
    assert sources(REQUEST_MOVES, RequestState.EXPIRED) == unfinished


def test_any_open_subtask_can_be_cancelled() -> None:
    assert sources(SUBTASK_MOVES, SubtaskState.CANCELLED) == set(SubtaskState) - SUBTASK_TERMINAL


def test_a_document_can_always_be_done_again() -> None:
    for state in DocumentState:
        assert reachable(DOCUMENT_MOVES, state) == set(DocumentState)


def test_only_a_running_document_becomes_ready_or_fails() -> None:
    for end in (DocumentState.READY, DocumentState.FAILED):
        assert sources(DOCUMENT_MOVES, end) == {DocumentState.RUNNING}


def test_a_rule_that_held_can_hold_again_and_one_that_was_refused_cannot() -> None:
    assert sources(RULE_MOVES, RuleState.RETIRED) == {RuleState.ACTIVE}
    assert RULE_MOVES[RuleState.RETIRED] == {RuleState.ACTIVE}
    assert RULE_MOVES[RuleState.REJECTED] == frozenset()


def test_nothing_is_tried_after_it_held() -> None:
    tried = {RuleState.PROPOSED, RuleState.SHADOW, RuleState.CANARY}
    assert not {RuleState.ACTIVE, RuleState.RETIRED} & {
        state for state in RuleState if RULE_MOVES[state] & tried
    }


def test_a_result_may_overtake_its_start_but_not_its_release() -> None:
    released = {SubtaskState.READY, SubtaskState.QUEUED, SubtaskState.RUNNING}
    assert sources(SUBTASK_MOVES, SubtaskState.SUCCEEDED) == released


def test_only_a_blocked_subtask_is_skipped() -> None:
    assert sources(SUBTASK_MOVES, SubtaskState.SKIPPED) == {SubtaskState.BLOCKED}


@every
def test_the_drawing_shows_every_move_once(states: type[StrEnum], moves: Moves) -> None:
    lines = drawing(moves).splitlines()
    arrows = {f"    {state} --> {target}" for state in states for target in moves[state]}
    ends = {f"    {state} --> [*]" for state in states if not moves[state]}
    assert lines[:2] == ["stateDiagram-v2", f"    [*] --> {next(iter(states))}"]
    assert sorted(lines[2:]) == sorted(arrows | ends)
