"""What was learned chooses among models that can answer, and never against a rule."""

from dataclasses import replace
from random import Random
from uuid import uuid4

import pytest

from db.engine import create_engine
from master.learning.routing import Learned, Routing, candidates, learned_of
from master.planning.assign import default_model
from master.planning.plan import StepKind
from master.planning.question import Fleet, Question, Retrieval
from master.planning.strategies import plan
from master.planning.work import work_of
from master.rules.bandit import Tally, Work
from master.rules.rule import Arm, RouteChange, RuleKind, UsedRule
from queue_schemas.registry import Registry
from tests.unit.planning.fleets import (
    CODER,
    EMBEDDING,
    QUOTING,
    SMALL,
    coder,
    fleet,
    question,
    small,
)

AUTO = "millrace/auto"
BEST = Tally(votes=60, good=57, raters=20)


def taught(*models: object, **known: object) -> Fleet:
    return replace(fleet(*models), learned={"answer": CODER}, **known)  # type: ignore[arg-type]


def test_the_work_of_a_question_is_told_by_what_it_wants() -> None:
    assert work_of(question("Why is the sea salt?")) is Work.ANSWER
    assert work_of(question("Write a Python function that sorts.")) is Work.CODE
    assert work_of(replace(question("Why?"), retrieval=Retrieval())) is Work.RAG
    assert work_of(Question(AUTO, ())) is Work.ANSWER


def test_the_model_that_was_judged_better_answers_and_the_reason_says_so() -> None:
    made = plan(question("Why is the sea salt?", AUTO), taught())
    assert [step.model for step in made.steps] == [CODER]
    assert made.reason == (
        f"Answered by {CODER} as a whole: it is one question; judged better for whole questions."
    )
    assert made.steps[0].work is Work.ANSWER


def test_what_is_only_tried_is_not_called_better() -> None:
    made = plan(question("Why is the sea salt?", AUTO), taught(tried=frozenset({"answer"})))
    assert "tried for whole questions" in made.reason


def test_another_kind_of_work_is_left_alone() -> None:
    made = plan(question("Write a Python function that sorts.", AUTO), taught())
    assert (made.steps[0].model, made.steps[0].work) == (SMALL, Work.CODE)
    assert "judged" not in made.reason


def test_a_client_that_names_a_model_gets_it_and_its_answer_counts() -> None:
    made = plan(question("Why is the sea salt?", SMALL), taught())
    assert (made.steps[0].model, made.steps[0].work) == (SMALL, Work.ANSWER)


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (taught(small(), small(name="other")), question("Why?", AUTO)),
        (taught(free_slots={SMALL: 1}), question("Why?", AUTO)),
        (taught(small(capabilities={"chat", "tools"}), coder()), question("Why?", AUTO, tools=[1])),
        (
            taught(small(), coder(context_length=300, max_output_tokens=200)),
            question("Why? " * 500, AUTO),
        ),
    ],
    ids=["it left the registry", "no worker serves it", "it calls no tools", "too long for it"],
)
def test_a_model_that_cannot_answer_is_not_chosen(known: Fleet, asked: Question) -> None:
    assert default_model(asked, known).name == SMALL


def test_a_model_is_only_preferred_to_the_one_it_was_compared_with() -> None:
    long = question("word " * 8000, AUTO)
    roomy = small(name="roomy", context_length=32768)
    known = taught(small(), roomy, coder(context_length=32768))
    assert default_model(long, known).name == "roomy"


def rule(**change: object) -> UsedRule:
    route = RouteChange(kind=RuleKind.ROUTE, model=SMALL)
    fields = {"id": uuid4(), "name": "r", "version": 1, "arm": Arm.ACTIVE, "kind": route.kind}
    return UsedRule.model_validate(fields | {"change": route} | change)


def test_a_route_rule_comes_before_what_was_learned() -> None:
    asked = question("Why?", AUTO)
    other = small(name="other")
    to_other = RouteChange(kind=RuleKind.ROUTE, model="other")
    known = taught(small(), coder(), other)
    assert default_model(asked, known).name == CODER
    for model in (None, SMALL, CODER):
        routed = replace(asked, rules=(rule(change=to_other, model=model),))
        assert default_model(routed, known).name == "other", model
    left_out = replace(asked, rules=(rule(change=to_other, arm=Arm.CONTROL),))
    assert default_model(left_out, known).name == CODER


def test_parts_go_to_the_model_that_was_judged_better_where_it_is_free() -> None:
    asked = question("1. Explain a dam\n2. Explain a weir\n3. Explain a lock", "millrace/split")
    made = plan(asked, replace(fleet(), learned={"part": CODER}))
    assert [step.model for step in made.steps] == [CODER] * 3
    assert {step.work for step in made.steps} == {Work.PART}
    busy = replace(fleet(free_slots={SMALL: 4, CODER: 0}), learned={"part": CODER})
    assert {step.model for step in plan(asked, busy).steps} == {SMALL}


def test_steps_that_answer_nobody_count_for_nothing() -> None:
    made = plan(question("Why is the sea salt?", "millrace/crew"), fleet())
    assert [(step.kind, step.work) for step in made.steps] == [(StepKind.PREPARE, None)]
    task = plan(question("x", AUTO, task="title_generation"), taught())
    assert [step.work for step in task.steps] == [None]


def test_what_is_learned_differs_from_what_planning_does_by_itself() -> None:
    registry = Registry(models=(small(), coder(), EMBEDDING, QUOTING))
    assert candidates(Work.ANSWER, registry) == [SMALL, CODER]
    found = {Work.ANSWER: {CODER: BEST, "gone": BEST}, Work.RAG: {SMALL: BEST}}
    learned = learned_of(found, registry, 0.0, Random(1))
    assert (dict(learned.models), learned.tried) == ({"answer": CODER}, frozenset())
    assert not learned_of({}, registry, 0.0, Random(1)).models
    tried = learned_of({}, registry, 0.5, Random(1))
    assert tried.tried
    assert tried.tried == set(tried.models)


def test_the_cheapest_model_does_parts_until_another_is_judged_better() -> None:
    dear = small(name="dear", price={"prompt": 9, "completion": 9})
    assert candidates(Work.PART, Registry(models=(dear, small()))) == [SMALL, "dear"]
    assert candidates(Work.CODE, Registry(models=(dear, small()))) == ["dear", SMALL]


async def test_a_routing_that_is_fixed_or_has_not_looked_yet_prefers_nothing() -> None:
    registry = Registry(models=(small(), coder()))
    engine = create_engine("postgresql://nobody@127.0.0.1:1/nowhere")
    for learns in (True, False):
        routing = Routing(engine, lambda: registry, learns=learns, explore_share=0.0)
        assert routing.learned(uuid4()) == Learned()
    await engine.dispose()
