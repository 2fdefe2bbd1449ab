"""Rules that cannot hold together are found, and only those."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from master.rules.conflicts import Version, circle, conflicts, fault, is_exception, meet
from master.rules.rule import Change, Scope

CHANGE: TypeAdapter[Any] = TypeAdapter(Change)
STRATEGIES = ("auto", "direct", "split", "rag")
MODELS = ("small", "large")
TOPICS = st.lists(st.sampled_from(["tax", "Tax", "law", "sea"]), max_size=2).map(tuple)
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
SCOPES = st.builds(
    Scope,
    strategy=st.sampled_from([None, "auto", "split"]),
    model=st.sampled_from([None, *MODELS]),
    topic=TOPICS,
)


def route(name: str, to: str, /, **scope: Any) -> Version:
    return rule(name, {"kind": "route", "model": to}, **scope)


def rule(name: str, change: dict[str, Any], **scope: Any) -> Version:
    return Version(name, 1, Scope.model_validate(scope), CHANGE.validate_python(change))


def split(name: str, **change: Any) -> Version:
    return rule(name, {"kind": "split", **change})


def prompt(name: str, text: str, **scope: Any) -> Version:
    return rule(name, {"kind": "prompt", "text": text}, **scope)


def why(candidate: Version, *others: Version) -> list[str]:
    return [f"{each.name}: {each.why}" for each in conflicts(candidate, others)]


def test_two_routes_for_the_same_questions_say_different_things() -> None:
    assert why(route("new", "small"), route("old", "large")) == [
        "old: it says otherwise which model answers: large, not small"
    ]
    assert not why(route("new", "small"), route("old", "small"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"strategy": "rag"}, {"strategy": "split"}),
        ({"model": "small"}, {"model": "medium"}),
        ({"topic": ["tax", "law"]}, {"topic": ["sea"]}),
        ({"topic": ["tax"], "strategy": "rag"}, {"topic": ["tax"], "strategy": "split"}),
    ],
)
def test_scopes_that_fit_no_question_together_keep_rules_apart(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert not why(route("new", "x", **one), route("old", "y", **other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"topic": ["tax"]}, {"strategy": "rag"}),
        ({"topic": ["tax", "law"]}, {"topic": ["sea", "TAX"]}),
        ({"strategy": "rag"}, {"strategy": "rag"}),
        ({"model": "small"}, {"topic": ["tax"]}),
    ],
)
def test_scopes_that_meet_do_not(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert len(why(route("new", "x", **one), route("old", "y", **other))) == 1


def test_a_rule_that_names_more_is_an_exception() -> None:
    wide, narrow = route("wide", "large"), route("narrow", "small", topic=["tax"])
    narrower = route("narrower", "medium", topic=["Tax"], strategy="rag")
    assert not why(narrow, wide)
    assert not why(wide, narrow)
    assert not why(narrower, wide, narrow)


def test_versions_of_one_name_replace_each_other() -> None:
    assert not why(route("same", "small"), route("same", "large"))


def test_a_model_and_a_strategy_are_two_things() -> None:
    assert not why(rule("new", {"kind": "route", "strategy": "split"}), route("old", "large"))


def test_each_setting_is_compared_by_itself() -> None:
    old = split("old", split=True, max_parts=4)
    assert not why(split("new", max_parts=4), old)
    assert why(split("new", split=False), old) == [
        "old: it says otherwise whether it is split: yes, not no"
    ]
    looked = rule("old", {"kind": "retrieval", "top": 5})
    assert not why(rule("new", {"kind": "retrieval", "candidates": 50}), looked)
    assert len(why(rule("new", {"kind": "retrieval", "top": 6}), looked)) == 1


def test_prompts_conflict_only_when_the_same_is_said_twice() -> None:
    assert not why(prompt("new", "Be brief."), prompt("old", "Be long."))
    assert why(prompt("new", "Be brief.", topic=["tax"]), prompt("old", "Be brief.")) == [
        "old: it says the same already"
    ]
    apart = prompt("old", "Be brief.", strategy="rag")
    assert not why(prompt("new", "Be brief.", strategy="split"), apart)


def test_models_that_go_in_a_circle_are_found_with_their_way() -> None:
    old = [route("one", "b", model="a"), route("two", "c", model="b"), route("far", "x", model="d")]
    assert why(route("three", "a", model="c"), *old) == [
        "one: models go in a circle: c -> a -> b -> c"
    ]
    assert not why(route("three", "d", model="c"), *old)


def test_a_circle_that_no_question_can_go_is_none() -> None:
    old = route("one", "b", model="a", strategy="rag")
    assert not why(route("two", "a", model="b", strategy="split"), old)
    assert len(why(route("two", "a", model="b"), old)) == 1


@given(st.lists(st.tuples(NAMES, NAMES), max_size=12), st.tuples(NAMES, NAMES))
def test_a_circle_is_found_exactly_where_there_is_one(
    edges: list[tuple[str, str]], new: tuple[str, str]
) -> None:
    others = [route(f"r{n}", target, model=model) for n, (model, target) in enumerate(edges)]
    candidate = route("new", new[1], model=new[0])
    found = circle(candidate, others)
    assert bool(found) == (new[0] in reachable(new[1], edges))
    if found:
        assert found[0] == candidate
        for one, following in zip(found, (*found[1:], candidate), strict=True):
            assert getattr(one.change, "model") == following.scope.model  # noqa: B009 - of a union


def reachable(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    known, edges = {start}, list(edges)
    while more := {target for model, target in edges if model in known} - known:
        known |= more
    return known


@given(SCOPES, SCOPES)
def test_meeting_is_mutual_and_an_exception_is_not(one: Scope, other: Scope) -> None:
    assert meet(one, other) == meet(other, one)
    assert meet(one, one)
    assert not (is_exception(one, other) and is_exception(other, one))
    if is_exception(one, other):
        assert meet(one, other)


@given(SCOPES, SCOPES, st.sampled_from(MODELS), st.sampled_from(MODELS))
def test_who_comes_first_makes_no_difference(
    one: Scope, other: Scope, first: str, second: str
) -> None:
    rules = [
        rule("one", {"kind": "route", "model": first}, **one.model_dump()),
        rule("other", {"kind": "route", "model": second}, **other.model_dump()),
    ]
    assert len(conflicts(rules[0], rules[1:])) == len(conflicts(rules[1], rules[:1]))


@pytest.mark.parametrize(
    ("scope", "change", "path"),
    [
        ({"strategy": "guess"}, {"kind": "prompt", "text": "x"}, "scope.strategy"),
        ({"model": "gone"}, {"kind": "prompt", "text": "x"}, "scope.model"),
        ({}, {"kind": "route", "model": "gone"}, "change.model"),
        ({"model": "small"}, {"kind": "route", "model": "small"}, "change.model"),
        ({}, {"kind": "route", "strategy": "guess"}, "change.strategy"),
        ({}, {"kind": "route", "strategy": "auto"}, "change.strategy"),
        ({"strategy": "rag"}, {"kind": "route", "strategy": "split"}, "scope.strategy"),
    ],
)
def test_what_can_never_work_is_named(
    scope: dict[str, Any], change: dict[str, Any], path: str
) -> None:
    made = rule("x", change, **scope)
    found = fault(made.scope, made.change, STRATEGIES, MODELS)
    assert found is not None
    assert found.path == path


@pytest.mark.parametrize(
    ("scope", "change"),
    [
        ({}, {"kind": "prompt", "text": "x"}),
        ({"strategy": "direct", "model": "small"}, {"kind": "route", "model": "large"}),
        ({"strategy": "auto"}, {"kind": "route", "strategy": "split"}),
        ({"topic": ["tax"]}, {"kind": "split", "split": False}),
    ],
)
def test_what_can_work_has_no_fault(scope: dict[str, Any], change: dict[str, Any]) -> None:
    made = rule("x", change, **scope)
    assert fault(made.scope, made.change, STRATEGIES, MODELS) is None
