"""Roll-ups become a few rules that are worth a look, and none twice."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from db.rollups import Complaint, RollUp
from db.rules import StoredRule
from master.learning import proposals as module
from master.learning.proposals import MOST_AT_ONCE, MOST_OPEN, REMEDIES, Proposal, proposals
from master.rules.rule import Change, Scope
from queue_schemas.states import RuleState

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TENANT = UUID(int=1)


def row(model: str, **more: Any) -> RollUp:
    """Answers that nobody judged, unless it says otherwise."""
    given: dict[str, Any] = {
        "tenant_id": TENANT,
        "asked": "auto",
        "strategy": "direct",
        "kind": "answer",
        "model": model,
        "rule_id": None,
        "rule_name": None,
        "rule_version": None,
        "arm": None,
        "requests": 100,
        "judged": 60,
        "votes": 0,
        "mean_score": None,
        "raters": 0,
        "stops": 0,
        "retries": 0,
        "p50_seconds": 1.0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
    }
    return RollUp(**given | more)


def liked(model: str, mean: float, **more: Any) -> RollUp:
    return row(model, **{"votes": 60, "raters": 20, "mean_score": mean} | more)


def complaint(word: str = "too_long", **more: Any) -> Complaint:
    given: dict[str, Any] = {"votes": 12, "raters": 6, "judgements": [UUID(int=9)]}
    return Complaint(TENANT, complaint=word, **{"asked": "auto"} | given | more)


def stored(proposal: Proposal, state: RuleState, days_ago: float = 1, **more: Any) -> StoredRule:
    decided = None if state is RuleState.PROPOSED else NOW - timedelta(days=days_ago)
    rule = StoredRule(
        id=uuid4(),
        tenant=TENANT,
        name=proposal.name,
        version=1,
        kind=proposal.change["kind"],
        scope=proposal.scope,
        change=proposal.change,
        state=state,
        share=None,
        measured=False,
        parent=None,
        provenance={"workflow": module.WORKFLOW},
        note=None,
        decided_by=None,
        decided_at=decided,
        created_at=NOW,
        changed_at=NOW,
    )
    return replace(rule, **more)


def found(
    rollup: Sequence[RollUp] = (),
    complaints: Sequence[Complaint] = (),
    known: Sequence[StoredRule] = (),
) -> list[Proposal]:
    return proposals(rollup, complaints, known, NOW)


BETTER = [liked("small", 0.5), liked("large", 0.8, asked="direct", requests=20)]


def test_a_model_that_is_clearly_better_than_the_usual_one_is_proposed() -> None:
    [made] = found(BETTER)
    assert (made.name, made.scope) == ("learned-route-auto", {"strategy": "auto"})
    assert made.change == {"kind": "route", "model": "large"}
    assert made.provenance == {
        "better": {"large": {"votes": 60, "mean": 0.8, "raters": 20}},
        "than": {"small": {"votes": 60, "mean": 0.5, "raters": 20}},
    }
    assert made.note == (
        "People score large 0.80 (60 votes, 20 raters) higher than"
        " small 0.50 (60 votes, 20 raters)."
    )


@pytest.mark.parametrize(
    "other",
    [
        liked("large", 0.58, asked="direct"),
        liked("large", 0.9, asked="direct", votes=19),
        liked("large", 0.9, asked="direct", raters=3),
        liked("large", 0.9, asked="direct", strategy="split"),
        liked("large", 0.9, asked="direct", kind="judge"),
        liked("large", 0.9, asked="direct", rule_id=uuid4(), rule_name="x", arm="canary"),
    ],
    ids=["hardly better", "few votes", "few raters", "of parts", "as a judge", "under a rule"],
)
def test_a_model_that_is_not_surely_better_is_not(other: RollUp) -> None:
    assert found([liked("small", 0.5), other]) == []


def test_the_usual_model_is_the_one_that_answered_most() -> None:
    rarely = liked("large", 0.8, requests=3)
    assert [made.change["model"] for made in found([liked("small", 0.5), rarely])] == ["large"]
    assert found([liked("small", 0.5, requests=2), rarely]) == []


def test_documents_have_a_model_of_their_own() -> None:
    of_documents = [replace(each, asked="rag", strategy="rag") for each in BETTER]
    [made] = found(of_documents)
    assert (made.name, made.scope) == ("learned-route-rag", {"strategy": "rag"})
    assert found([BETTER[0], of_documents[1]]) == []


def test_splits_that_people_like_less_are_proposed_to_end() -> None:
    [made] = found([liked("mill", 0.8), liked("mill", 0.5, strategy="split")])
    assert (made.name, made.change) == ("learned-split-auto", {"kind": "split", "split": False})
    assert found([liked("mill", 0.5), liked("mill", 0.8, strategy="split")]) == []


def test_a_vote_on_parts_of_several_models_counts_once() -> None:
    parts = [liked(f"mill-{n}", 0.5, strategy="split", votes=10) for n in range(4)]
    assert found([liked("mill", 0.9), *parts]) == []


def test_what_many_complain_of_becomes_a_prompt() -> None:
    [made] = found([row("mill")], [complaint()])
    assert made.name == "learned-too-long-auto"
    assert made.change == {"kind": "prompt", "text": REMEDIES["too_long"]}
    assert made.provenance == {
        "feedback": [str(UUID(int=9))],
        "complaint": "too_long",
        "votes": 12,
        "raters": 6,
    }
    assert made.note == "6 people say of 12 answers: too long."


@pytest.mark.parametrize(
    "said",
    [
        complaint(votes=4),
        complaint(raters=2, votes=400),
        complaint("no such word"),
        complaint(asked="Not A Name!"),
    ],
    ids=["seldom", "by two", "unknown", "odd strategy"],
)
def test_what_few_complain_of_does_not(said: Complaint) -> None:
    assert found([row("mill")], [said]) == []


def test_a_complaint_must_be_frequent_among_the_judged() -> None:
    assert found([row("mill", judged=1_000)], [complaint(votes=49)]) == []
    assert len(found([row("mill", judged=1_000)], [complaint(votes=50)])) == 1


@pytest.mark.parametrize(
    ("state", "days", "again"),
    [
        (RuleState.PROPOSED, 0, False),
        (RuleState.SHADOW, 99, False),
        (RuleState.CANARY, 99, False),
        (RuleState.ACTIVE, 99, False),
        (RuleState.REJECTED, 29, False),
        (RuleState.REJECTED, 31, True),
        (RuleState.RETIRED, 29, False),
        (RuleState.RETIRED, 31, True),
    ],
)
def test_what_exists_or_was_refused_lately_is_not_proposed_again(
    state: RuleState, days: float, again: bool
) -> None:
    [made] = found(BETTER)
    assert bool(found(BETTER, known=[stored(made, state, days)])) is again


def test_a_name_that_is_being_decided_on_gets_no_other_version() -> None:
    [made] = found(BETTER)
    other = replace(made, change={"kind": "route", "model": "third"})
    assert found(BETTER, known=[stored(other, RuleState.CANARY)]) == []
    assert found(BETTER, known=[stored(other, RuleState.ACTIVE)]) == [made]


def test_somebody_elses_rule_of_the_same_words_counts_too() -> None:
    [made] = found(BETTER)
    theirs = stored(made, RuleState.REJECTED, name="by-hand", provenance={"by": "user:alice"})
    assert found(BETTER, known=[theirs]) == []


def test_never_more_than_a_few_at_a_time() -> None:
    said = [complaint(word, raters=5 + n) for n, word in enumerate(REMEDIES)]
    first = found([row("mill")], said)
    assert len(first) == MOST_AT_ONCE
    assert first[0].provenance["raters"] == 5 + len(REMEDIES) - 1
    known: list[StoredRule] = []
    for _ in range(9):
        known += [stored(each, RuleState.PROPOSED) for each in found([row("mill")], said, known)]
    assert len(known) == MOST_OPEN


def test_where_nobody_decides_nothing_is_added() -> None:
    [made] = found(BETTER)
    theirs = {"name": "n8n", "change": {}, "provenance": {"workflow": "n8n"}}
    for state in (RuleState.PROPOSED, RuleState.SHADOW):
        known = [stored(made, state, **theirs)] * module.MOST_PROPOSED
        assert found(BETTER, known=known) == []


rows = st.builds(
    row,
    st.sampled_from(("small", "large", "third")),
    asked=st.sampled_from(("auto", "direct", "rag", "split")),
    strategy=st.sampled_from(("direct", "split", "rag", "")),
    kind=st.sampled_from(("answer", "synthesis", "judge")),
    votes=st.integers(0, 200),
    mean_score=st.none() | st.floats(0, 1),
    raters=st.integers(0, 50),
    requests=st.integers(0, 500),
    judged=st.integers(0, 500),
)
complaints_made = st.builds(
    complaint,
    st.sampled_from((*REMEDIES, "other")),
    asked=st.sampled_from(("auto", "rag", "direct", "", "x" * 80)),
    votes=st.integers(0, 50),
    raters=st.integers(0, 50),
)


@given(st.lists(rows, max_size=8), st.lists(complaints_made, max_size=4))
def test_whatever_is_proposed_is_a_rule_and_is_not_proposed_twice(
    rollup: list[RollUp], complaints: list[Complaint]
) -> None:
    first = found(rollup, complaints)
    assert len(first) <= MOST_AT_ONCE
    for each in first:
        TypeAdapter(Change).validate_python(each.change)
        Scope.model_validate(each.scope)
        assert len(each.name) <= 64
    known = [stored(each, RuleState.REJECTED) for each in first]
    again = found(rollup, complaints, known)
    assert not {each.name for each in again} & {each.name for each in first}
