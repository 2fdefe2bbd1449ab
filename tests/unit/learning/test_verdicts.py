"""What is stored of what was said of an answer."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from db.models import JudgementKind as StoredKind
from master.api.feedback_shapes import FeedbackRequest
from master.learning.verdicts import judgements_of, judgements_of_stored, person, score_of
from master.planning.plan import (
    AggregatorName,
    Judgement,
    JudgementKind,
    Plan,
    Step,
    StepKind,
)

KEYS = ("research", "draft", "review")
finite = st.floats(allow_nan=False, allow_infinity=False)
judgement = st.builds(
    Judgement,
    step=st.sampled_from(("review", "gone")),
    kind=st.sampled_from(JudgementKind),
    scores=st.dictionaries(st.sampled_from(KEYS), finite, max_size=3),
    passed=st.none() | st.booleans(),
    reason=st.text(max_size=5),
    problem=st.sampled_from(("", "it failed")),
)


def a_plan(*judgements: Judgement) -> Plan:
    """A crew's: the reviewer was given the notes and the draft."""
    kinds = (StepKind.PREPARE, StepKind.CANDIDATE, StepKind.JUDGE)
    steps = tuple(
        Step(key=key, kind=kind, model="mill", messages=(), depends_on=KEYS[:place])
        for place, (key, kind) in enumerate(zip(KEYS, kinds, strict=True))
    )
    return Plan(
        strategy="crew", aggregator=AggregatorName.CHOSEN, steps=steps, judgements=judgements
    )


def review(**said: object) -> Judgement:
    return Judgement(step="review", kind=JudgementKind.REVIEW, **said)


@given(st.lists(judgement, max_size=5))
def test_scores_are_between_0_and_1_and_nobody_judges_the_same_twice(
    said: list[Judgement],
) -> None:
    made = judgements_of(a_plan(*said), {})
    assert all(each.score is not None and 0 <= each.score <= 1 for each in made)
    assert len({(each.kind, each.rater, each.subject) for each in made}) == len(made)


def test_every_answer_that_a_judge_scored_is_judged() -> None:
    subtasks = {"draft": uuid4()}
    said = Judgement(
        step="review",
        kind=JudgementKind.CHOICE,
        scores={"draft": 70, "other": 20},
        reason="it says more",
    )
    first, second = judgements_of(a_plan(said), subtasks)
    assert (first.kind, first.rater) == (StoredKind.CHOICE, "step:review")
    assert (first.subject, first.subtask, first.score) == ("draft", subtasks["draft"], 0.7)
    assert (second.subject, second.subtask, second.score) == ("other", None, 0.2)
    assert first.rating == second.rating == {"scores": {"draft": 70, "other": 20}}
    assert first.reason == "it says more"


@pytest.mark.parametrize(("passed", "score"), [(True, 1.0), (False, 0.0)])
def test_a_verdict_without_a_score_is_of_the_answer_that_was_given(
    passed: bool, score: float
) -> None:
    [made] = judgements_of(a_plan(review(passed=passed)), {})
    assert (made.subject, made.score, made.rating) == ("draft", score, {"passed": passed})


def test_a_judge_that_is_not_in_the_plan_judges_the_whole() -> None:
    said = Judgement(step="gone", kind=JudgementKind.CHECK, passed=True)
    assert [made.subject for made in judgements_of(a_plan(said), {})] == [""]


def test_a_judge_that_said_nothing_usable_judges_nothing() -> None:
    assert judgements_of(a_plan(review(problem="it failed"), review()), {}) == []


def test_a_stored_plan_that_cannot_be_read_says_nothing() -> None:
    kept = a_plan(review(passed=True)).model_dump(mode="json")
    assert len(judgements_of_stored(kept, {})) == 1
    assert judgements_of_stored(kept | {"steps": "broken"}, {}) == []


def test_every_kind_of_a_plan_can_be_stored() -> None:
    assert {kind.value for kind in JudgementKind} <= set(StoredKind)


@given(st.none() | st.sampled_from((-1, 1)), st.none() | st.integers(1, 10))
def test_a_persons_score_is_between_0_and_1(thumb: int | None, stars: int | None) -> None:
    score = score_of(thumb, stars)
    assert (score is None) == (thumb is None and stars is None)
    assert score is None or 0 <= score <= 1


@pytest.mark.parametrize(
    ("thumb", "stars", "score"),
    [(-1, None, 0.0), (1, None, 1.0), (None, 1, 0.0), (None, 10, 1.0), (1, 7, 6 / 9)],
)
def test_stars_say_more_than_a_thumb(thumb: int | None, stars: int | None, score: float) -> None:
    assert score_of(thumb, stars) == score


def test_who_was_not_named_is_a_person_too() -> None:
    assert [person("alice"), person(""), person(None)] == ["user:alice", "user:", "user:"]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"reason": "not_factual"},
        {"comment": " "},
        {"rating": 0},
        {"rating": True},
        {"rating": 7},
        {"rating": "1"},
        {"stars": 0},
        {"stars": 11},
        {"stars": True},
        {"stars": 5.5},
        {"rating": 1, "reason": "x" * 201},
        {"comment": "x" * 4001},
        {"correction": "x" * 100_001},
        {"rating": 1, "user": "x" * 513},
        {"rating": 1, "subtask": "draft"},
        {"rating": 1, "request": 7},
    ],
    ids=str,
)
def test_feedback_that_says_nothing_or_too_much_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FeedbackRequest.model_validate({"request": str(uuid4())} | said)
