"""Which strategy `auto` takes, and that it says why."""

from dataclasses import replace
from typing import Any

import pytest

from master.planning.plan import Plan
from master.planning.question import Fleet, Question, Retrieval
from master.planning.question_kind import QuestionKind, kind_by_words
from master.planning.strategies import plan
from master.rules.rule import UsedRule
from tests.unit.planning.fleets import CODER, SMALL, coder, fleet, question, small
from tests.unit.planning.rulings import used
from tests.unit.planning.test_strategies import THREE, TOOLS

ALL = ("direct", "split", "rag", "router", "crew", "ensemble")
FACT, REASONS, POEM = (
    "Who built the Eiffel Tower?",
    "Why do prices rise in wartime?",
    "Write a short poem about autumn.",
)
PARTS = THREE.replace("for it", "for a parser")
BUSY = {SMALL: 1, CODER: 0}


def known(*auto: str, free: dict[str, int] | None = None) -> Fleet:
    found = fleet(small(), coder(), free_slots=free or {SMALL: 4, CODER: 4})
    registry = type(found.registry).model_validate(
        found.registry.model_dump() | ({"auto": auto} if auto else {})
    )
    return replace(found, registry=registry)


def chosen(text: str, *rules: UsedRule, at: Fleet | None = None, **more: Any) -> Plan:
    return plan(replace(question(text, "millrace/auto"), rules=rules, **more), at or known())


@pytest.mark.parametrize("text", [FACT, REASONS, POEM, "Hi!"])
def test_by_default_it_takes_nothing_that_costs_several_calls(text: str) -> None:
    made = chosen(text)
    assert (made.strategy, made.gate) == ("direct", None)
    assert made.reason == f"Answered by {SMALL} as a whole: it is one question."


@pytest.mark.parametrize(
    ("text", "strategy"), [(FACT, "router"), (REASONS, "crew"), (POEM, "ensemble")]
)
def test_the_kind_of_question_decides_where_the_registry_lists_the_strategy(
    text: str, strategy: str
) -> None:
    made = chosen(text, at=known(*ALL))
    assert made.strategy == strategy
    assert made.reason.startswith(f"{strategy.capitalize()} is taken, because the question is")
    assert made.gate is not None
    assert "slots are idle" in made.gate.reason
    assert not made.gate.split
    others = [name for name in ALL if name != strategy]
    assert chosen(text, at=known(*others)).strategy == "direct"


@pytest.mark.parametrize("text", [FACT, REASONS, POEM])
def test_it_waits_for_no_slot(text: str) -> None:
    made = chosen(text, at=known(*ALL, free=BUSY))
    assert made.strategy == "direct"
    assert made.gate is not None
    assert "would be apt but is not taken" in made.reason
    assert "would be apt but is not taken" in made.gate.reason


def test_an_ensemble_wants_a_slot_for_each_of_its_candidates() -> None:
    alone = fleet(small(slots=4), free_slots={SMALL: 2})
    registry = alone.registry.model_copy(update={"auto": ALL})
    made = chosen(POEM, at=replace(alone, registry=registry))
    assert "2 of 3 slots are idle" in made.reason


def test_parts_that_pay_come_before_the_kind_and_others_after_it() -> None:
    assert chosen(PARTS, at=known(*ALL)).strategy == "split"
    one_each = {SMALL: 1, CODER: 1}
    made = chosen(f"Answer and say why:\n{THREE}", at=known(*ALL, free=one_each))
    assert made.strategy == "crew"
    assert made.gate is not None
    assert made.gate.expected_speedup is not None
    assert "Crew is taken" in made.gate.reason


def test_documents_come_before_parts() -> None:
    made = chosen(PARTS, retrieval=Retrieval(collection="book"), at=known(*ALL))
    assert (made.strategy, len(made.steps)) == ("rag", 3)
    assert made.reason.startswith("Rag is taken, because there is something to look up.")
    made = chosen(PARTS, retrieval=Retrieval(), at=known("direct", "split"))
    assert made.strategy == "split"
    assert all(step.lookup for step in made.steps)


def test_without_split_in_the_list_nothing_is_split() -> None:
    made = chosen(PARTS, at=known("direct"))
    assert made.strategy == "direct"
    assert "auto does not split here" in made.reason


@pytest.mark.parametrize("strategy", [name for name in ALL if name != "split"])
def test_a_rule_comes_before_everything(strategy: str) -> None:
    made = chosen(PARTS, used("says-so", strategy=strategy), retrieval=Retrieval())
    assert made.strategy == strategy
    assert "because the rule says-so (version 1) says so" in made.reason
    assert made.gate is not None
    assert made.rules[0].name == "says-so"


@pytest.mark.parametrize("strategy", ["gone", "auto"])
def test_a_rule_for_no_strategy_is_no_rule(strategy: str) -> None:
    assert chosen(FACT, used(strategy=strategy)).strategy == "direct"


def test_a_rule_says_whether_to_split() -> None:
    made = chosen(PARTS, used("whole", split=False))
    assert made.strategy == "direct"
    assert "the rule whole (version 1) says not to split" in made.reason
    from_documents = chosen(PARTS, used("whole", split=False), retrieval=Retrieval())
    assert (from_documents.strategy, len(from_documents.steps)) == ("rag", 1)
    slow = known(free={SMALL: 1, CODER: 1})
    assert chosen(THREE, at=slow).strategy == "direct"
    made = chosen(THREE, used("parts", split=True), at=slow)
    assert made.strategy == "split"
    assert made.reason.endswith("Split, because the rule parts (version 1) says so.")
    assert chosen(THREE, used(split=True), at=known("direct")).strategy == "split"
    assert chosen(FACT, used(split=True)).strategy == "direct"


@pytest.mark.parametrize(
    "asked",
    [
        question(REASONS, "millrace/auto", tools=TOOLS),
        replace(
            question(REASONS, "millrace/auto"),
            messages=({"role": "user", "content": REASONS}, {"role": "assistant", "content": "a"}),
        ),
    ],
    ids=["tools", "the assistant's word"],
)
def test_what_one_model_must_answer_is_given_to_one(asked: Question) -> None:
    assert plan(asked, known(*ALL)).strategy == "direct"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (FACT, QuestionKind.FACTUAL),
        ("How many people live in Ulm?", QuestionKind.FACTUAL),
        ("I need help. What is the capital of France?", QuestionKind.FACTUAL),
        ("Wie viele Menschen leben in Ulm?", QuestionKind.FACTUAL),
        ("Wann wurde die Mauer gebaut?", QuestionKind.FACTUAL),
        ("Was bedeutet das Wort Mühle?", QuestionKind.FACTUAL),
        ("Nenne mir die Geschichte der Stadt Rom.", QuestionKind.FACTUAL),
        (REASONS, QuestionKind.ANALYTICAL),
        ("Compare Rust and Go for a web server.", QuestionKind.ANALYTICAL),
        ("Should I rent or buy a flat?", QuestionKind.ANALYTICAL),
        ("What is the best way to learn Dutch?", QuestionKind.ANALYTICAL),
        ("Warum ist das Meer salzig?", QuestionKind.ANALYTICAL),
        ("Soll man Aktien oder Gold kaufen?", QuestionKind.ANALYTICAL),
        ("Welche Vorteile hat eine Wärmepumpe?", QuestionKind.ANALYTICAL),
        (POEM, QuestionKind.CREATIVE),
        ("Invent a name for my bakery.", QuestionKind.CREATIVE),
        ("Tell me a funny joke, please.", QuestionKind.CREATIVE),
        ("Schreib mir ein kurzes Gedicht.", QuestionKind.CREATIVE),
        ("Erzähl meiner Tochter eine Geschichte.", QuestionKind.CREATIVE),
        ("Write a function that adds two numbers.", None),
        ("Übersetze das bitte ins Englische.", None),
        ("Thanks, that was very helpful.", None),
        ("Why?", None),
        ("", None),
        ("\u4ec0\u4e48\u662f\u961f\u5217\uff1f", None),
    ],
)
def test_words_tell_the_kind_of_a_question(text: str, kind: QuestionKind | None) -> None:
    assert kind_by_words(text) is kind
