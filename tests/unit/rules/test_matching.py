"""Which rules fit a question, and which arm each request draws."""

from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.rules.matching import Asked, RuleInForce, arm_of, choose, dice, fits, steady
from master.rules.rule import Arm
from queue_schemas.states import RuleState
from tests.unit.planning.rulings import rule

REQUESTS = [UUID(int=number) for number in range(2000)]
AUTO = Asked("auto", text="How does a quorum queue work?")
NAMED = Asked("direct", "mill", "How does a quorum queue work?")
CANARY, SHADOW = RuleState.CANARY, RuleState.SHADOW


def arms(rules: list[RuleInForce], request: UUID, asked: Asked = AUTO) -> dict[int, Arm]:
    """The arm of each version that is recorded."""
    return {used.version: used.arm for used in choose(rules, asked, request)}


@pytest.mark.parametrize(
    ("scope", "asked", "holds"),
    [
        ({}, AUTO, True),
        ({"strategy": "auto"}, AUTO, True),
        ({"strategy": "split"}, AUTO, False),
        ({"strategy": "direct"}, NAMED, True),
        ({"strategy": "auto"}, NAMED, False),
        ({"model": "mill"}, NAMED, True),
        ({"model": "wheel"}, NAMED, False),
        ({"model": "wheel"}, AUTO, True),
        ({"topic": ["QUEUE"]}, AUTO, True),
        ({"topic": ["weather", "quorum  queue"]}, AUTO, True),
        ({"topic": ["weather"]}, AUTO, False),
        ({"strategy": "auto", "topic": ["weather"]}, AUTO, False),
    ],
)
def test_a_rule_fits_where_all_of_its_scope_does(
    scope: dict[str, object], asked: Asked, holds: bool
) -> None:
    assert fits(rule(scope=scope), asked) is holds


@pytest.mark.parametrize(
    ("topic", "text", "holds"),
    [
        ("queue", "Queues are lines.", False),
        ("queue", "Is it a queue?", True),
        ("queue", "requeue it", False),
        ("rag", "a storage system", False),
        ("c++", "Is C++ fast?", True),
        ("e-mail", "Send an E-Mail!", True),
        ("quorum queue", "a quorum\nqueue", True),
        ("straße", "DIE STRASSE IST LANG", True),
        ("cafe\u0301", "ein CAFÉ", True),
        ("\u961f\u5217", "\u4ec0\u4e48\u662f\u961f\u5217\uff1f", True),
        ("queue", "queue_size", False),
        (" ", "anything  at all", False),
        ("last", "word " * 50_000 + "last", True),
        ("first", "first" + " word" * 50_000, True),
        ("middle", "word " * 50_000 + "middle" + " word" * 50_000, False),
        ("queue", "", False),
    ],
)
def test_topics_are_whole_words_in_any_case(topic: str, text: str, holds: bool) -> None:
    assert fits(rule(scope={"topic": [topic]}), Asked("auto", text=text)) is holds


@given(st.text(max_size=50), st.text(min_size=1, max_size=20))
def test_any_text_and_any_topic_can_be_compared(text: str, topic: str) -> None:
    scope = {"topic": [topic]}
    around = Asked("auto", text=f"{text} {topic} {text}")
    assert fits(rule(scope=scope), around) or not topic.strip()


@pytest.mark.parametrize(
    ("says", "strategies"),
    [
        ({"text": "Be brief."}, {"auto", "direct", "split", "crew"}),
        ({"model": "mill"}, {"auto", "split", "crew"}),
        ({"strategy": "crew"}, {"auto"}),
        ({"split": False}, {"auto"}),
        ({"max_parts": 3}, {"auto", "split"}),
        ({"top": 5}, {"auto", "direct", "split", "crew"}),
    ],
)
def test_what_could_change_nothing_does_not_fit(says: dict[str, Any], strategies: set[str]) -> None:
    asked = [NAMED, *(Asked(name) for name in ("auto", "split", "crew"))]
    assert {each.strategy for each in asked if fits(rule(**says), each)} == strategies


def test_a_shadow_is_counted_and_an_active_rule_applies() -> None:
    rules = [rule("a"), rule("b", 2, state=SHADOW)]
    assert arms(rules, uuid4()) == {1: Arm.ACTIVE, 2: Arm.SHADOW}


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_a_canary_is_given_its_share_of_the_requests(share: float) -> None:
    tried = rule(state=CANARY, share=share)
    drawn = Counter(arm_of(tried, request) for request in REQUESTS)
    assert drawn.keys() <= {Arm.CANARY, Arm.CONTROL}
    assert drawn[Arm.CANARY] / len(REQUESTS) == pytest.approx(share, abs=0.03)


def test_what_a_measured_lift_made_active_keeps_a_tenth_as_control() -> None:
    drawn = Counter(arm_of(rule(measured=True), request) for request in REQUESTS)
    assert drawn[Arm.CONTROL] / len(REQUESTS) == pytest.approx(0.1, abs=0.03)
    assert set(drawn) == {Arm.ACTIVE, Arm.CONTROL}


@given(st.uuids(), st.uuids())
def test_dice_fall_the_same_way_every_time_and_below_one(version: UUID, request: UUID) -> None:
    assert 0 <= dice(version, request) < 1
    assert dice(version, request) == dice(version, request)


def test_a_larger_share_keeps_the_requests_of_a_smaller_one() -> None:
    small, large = (rule(state=CANARY, share=share) for share in (0.2, 0.6))
    for request in REQUESTS[:200]:
        if arm_of(small, request) is Arm.CANARY:
            assert arm_of(large, request) is Arm.CANARY


def test_two_rules_are_drawn_for_independently() -> None:
    one, other = (rule(name, state=CANARY, share=0.5) for name in ("one", "other"))
    both = Counter((arm_of(one, request), arm_of(other, request)) for request in REQUESTS)
    assert len(both) == 4
    assert all(count / len(REQUESTS) == pytest.approx(0.25, abs=0.04) for count in both.values())


def test_a_canary_takes_the_place_of_the_active_version_or_is_its_control() -> None:
    rules = [rule(version=1, measured=True), rule(version=2, state=CANARY, share=0.5)]
    seen = [arms(rules, request) for request in REQUESTS]
    assert {tuple(sorted(each.items())) for each in seen} == {
        ((2, Arm.CANARY),),
        ((1, Arm.ACTIVE), (2, Arm.CONTROL)),
    }


def test_a_canary_that_does_not_fit_leaves_the_active_version_alone() -> None:
    narrow = rule(version=2, state=CANARY, share=1.0, scope={"topic": ["weather"]})
    assert arms([rule(), narrow], uuid4()) == {1: Arm.ACTIVE}


def test_what_is_on_trial_comes_first_and_then_the_narrowest() -> None:
    rules = [
        rule("b"),
        rule("a"),
        rule("c", scope={"topic": ["queue"], "strategy": "auto"}),
        rule("d", scope={"topic": ["queue"]}),
        rule("e", state=CANARY, share=1.0),
    ]
    found = [used.name for used in choose(rules, AUTO, uuid4())]
    assert found == ["e", "c", "d", "a", "b"]


def test_a_version_is_recorded_with_what_it_says_and_where_it_holds() -> None:
    [used] = choose([rule("x", 3, scope={"model": "mill"}, text="Rhyme.")], AUTO, uuid4())
    assert (used.name, used.version, used.arm, used.model) == ("x", 3, Arm.ACTIVE, "mill")
    assert used.applies


def test_rules_are_steady_where_none_that_fits_is_on_trial() -> None:
    always, tried = rule("a"), rule("b", state=CANARY, share=0.1, scope={"topic": ["queue"]})
    counted = rule("c", state=SHADOW)
    assert steady([always, tried, counted], Asked("auto", text="Why?")) == (always,)
    assert steady([always, tried], AUTO) is None
    assert steady([rule(measured=True)], AUTO) is None
    assert steady([], AUTO) == ()
