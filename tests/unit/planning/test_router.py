"""What kind of question it is, an answer, a check, and one escalation."""

import json
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.planning.grounding import LATER, ground
from master.planning.growth import Outcome, beginning
from master.planning.plan import JudgementKind, Source
from master.planning.question import Retrieval
from master.planning.strategies import grow, named, plan
from tests.unit.planning.fleets import CODER, SMALL, coder, fleet, question, small
from tests.unit.planning.growing import carry_out, prompt, told, unexplained

ASKED = question("When was the mill built?", "millrace/router")
FOUND = named(ASKED)
LARGE = fleet(small(), coder())
CHEAP = fleet(small())


def kind(name: str) -> str:
    return json.dumps({"kind": name})


def check(score: float) -> str:
    return json.dumps({"reason": "so so", "score": score})


def answers(**given: str | None):
    texts = {"classify": kind("analytical"), "answer": "In 1850.", "check": check(90)}
    return told({**texts, "escalation": "In 1851.", **given})


def source(number: int) -> Source:
    return Source(
        number=1,
        chunk=number,
        document=UUID(int=number),
        name=f"{number}.md",
        position=0,
        text=f"The mill was built in 185{number}.",
        score=0.9,
        rerank_score=0.9,
        steps=(),
    )


def with_documents(asked=FOUND, known=LARGE):
    return ground(plan(asked, known), {LATER: [source(1), source(2)]}, asked, known)


def go_on(made, asked, known, outcomes, *texts):
    """The plan after these steps said this, one after the other."""
    for key, text in texts:
        outcomes[key] = Outcome(text or "", failed=text is None)
        made = grow(asked, known, made, outcomes)
    return made


def test_a_good_answer_is_shown_with_its_score():
    made, outcomes = carry_out(ASKED, LARGE, answers())
    assert list(outcomes) == ["classify", "answer", "check"]
    assert made.chosen == "answer"
    [judgement] = made.judgements
    assert (judgement.kind, judgement.scores) == (JudgementKind.CHECK, {"answer": 90})
    assert judgement.passed
    assert "analytical" in made.reason


@pytest.mark.parametrize(("score", "passes"), [(0, False), (59.9, False), (60, True), (100, True)])
def test_sixty_is_enough(score, passes):
    made, _ = carry_out(ASKED, LARGE, answers(check=check(score)))
    assert made.judgements[0].passed is passes
    assert made.chosen == ("answer" if passes else "escalation")


def test_the_escalation_is_answered_by_the_largest_model():
    made, _ = carry_out(ASKED, LARGE, answers(check=check(10)))
    assert (made.steps[1].model, made.steps[-1].model) == (SMALL, CODER)
    assert made.steps[-1].messages == ASKED.messages


def test_where_nothing_better_can_be_had_the_answer_is_shown():
    made, outcomes = carry_out(ASKED, CHEAP, answers(check=check(10)))
    assert made.chosen == "answer"
    assert "escalation" not in outcomes
    assert made.judgements[0].passed is False


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"classify": None}, "answer"),
        ({"classify": "It is factual, I think."}, "answer"),
        ({"answer": None}, "escalation"),
        ({"answer": "  "}, "escalation"),
        ({"check": None}, "answer"),
        ({"check": "Ninety."}, "answer"),
        ({"check": check(10), "escalation": None}, "answer"),
    ],
)
def test_who_fails_is_done_without(changes, chosen):
    made, _ = carry_out(ASKED, LARGE, answers(**changes))
    assert made.chosen == chosen


def test_when_all_fail_nothing_is_chosen_but_the_last():
    made, _ = carry_out(ASKED, CHEAP, answers(answer=None))
    assert made.chosen == ""


@pytest.mark.parametrize(
    ("classified", "grounded"),
    [(kind("factual"), True), ("?", True), (kind("analytical"), False), (kind("creative"), False)],
)
def test_a_factual_question_is_answered_from_documents(classified, grounded):
    made = go_on(with_documents(), FOUND, LARGE, {}, ("classify", classified))
    told_model = prompt(made, made.steps[-1], {})
    assert ("The mill was built in 1851." in told_model) is grounded
    assert [bool(found.steps) for found in made.sources] == [grounded] * 2
    assert [found.number for found in made.sources] == [1, 2]


def test_what_was_answered_without_documents_is_escalated_to_them():
    outcomes: dict[str, Outcome] = {}
    steps = [("classify", kind("creative")), ("answer", "In 1900."), ("check", check(0))]
    made = go_on(with_documents(), FOUND, LARGE, outcomes, *steps)
    assert made.chosen == "escalation"
    assert made.steps[-1].model == SMALL
    assert "1851" in prompt(made, made.steps[-1], outcomes)
    assert made.sources[0].steps == ("escalation",)


def test_what_was_answered_from_documents_is_escalated_to_the_largest_model_with_them():
    outcomes: dict[str, Outcome] = {}
    steps = [("classify", kind("factual")), ("answer", "In 1900."), ("check", check(0))]
    made = go_on(with_documents(), FOUND, LARGE, outcomes, *steps)
    assert made.steps[-1].model == CODER
    assert "1851" in prompt(made, made.steps[-1], outcomes)
    assert made.sources[0].steps == ("answer", "escalation")


def test_documents_are_looked_up_where_there_are_any_and_a_named_collection_must_be_there():
    assert FOUND.retrieval == Retrieval(optional=True)
    assert plan(FOUND, LARGE).lookup == "When was the mill built?"
    wanted = named(replace(ASKED, model="millrace/router:handbook")).retrieval
    assert wanted == Retrieval(collection="handbook")
    given = Retrieval(collection="mine", top=5)
    assert named(replace(ASKED, retrieval=given)).retrieval == given


def test_done_again_it_begins_with_the_classification_and_keeps_what_was_found():
    outcomes: dict[str, Outcome] = {}
    steps = [("classify", kind("factual")), ("answer", "In 1900."), ("check", check(0))]
    made = go_on(with_documents(), FOUND, LARGE, outcomes, *steps)
    assert unexplained(beginning(made)) == unexplained(with_documents())


@given(st.lists(st.none() | st.text(max_size=60), min_size=4, max_size=4))
def test_whatever_the_models_say_it_ends_with_an_answer_that_is_there(texts):
    said = dict(zip(("classify", "answer", "check", "escalation"), texts, strict=True))
    made, outcomes = carry_out(ASKED, LARGE, told(said))
    usable = {key for key in ("answer", "escalation") if key in outcomes and outcomes[key].usable}
    assert (made.chosen in usable) if usable else made.chosen in {"", "escalation", "answer"}
