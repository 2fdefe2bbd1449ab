"""What rules do to planning: prompts, models, parts and lookups."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from master.planning.chat import text_of
from master.planning.growth import Outcome, Outcomes
from master.planning.plan import Plan, Step, StepKind
from master.planning.question import Fleet, Question, Retrieval
from master.planning.strategies import grow, messages_for, named, plan
from master.planning.under_rules import asked_of, under_rules
from master.rules.rule import Arm, UsedRule
from queue_schemas.registry import Capability, Model
from queue_schemas.states import RuleState
from tests.unit.planning.fleets import CODER, QUOTER, SMALL, coder, fleet, question, small
from tests.unit.planning.growing import carry_out, told
from tests.unit.planning.rulings import rule, used
from tests.unit.planning.templates import rag_prompt
from tests.unit.planning.test_strategies import COMPARE, IMAGE, LONG, SYSTEM, THREE, TOOLS

RHYME = "Answer in rhyme."
REQUEST = UUID(int=1)
LIST = "\n".join(f"{number}. Explain topic number {number}" for number in range(1, 13))


def ruled(asked: Question, *rules: UsedRule) -> Question:
    return replace(asked, rules=rules)


def said(made: Plan, step: Step) -> list[str]:
    """The texts of the system messages that the step's model is given."""
    inputs = dict.fromkeys(step.depends_on, "done")
    return [text_of(m) for m in messages_for(made, step, inputs) if m["role"] == "system"]


def says_it(made: Plan) -> dict[str, bool]:
    """Whether each step is told to rhyme."""
    return {step.key: RHYME in "".join(said(made, step)) for step in made.steps}


# --- prompts -------------------------------------------------------------------------------------


def test_a_prompt_is_a_system_message_of_its_own() -> None:
    asked = ruled(question("Why?", SMALL), used(text=RHYME))
    made = plan(asked, fleet())
    assert said(made, made.steps[0]) == [RHYME]
    assert made.steps[0].messages == asked.messages, "it is stored in no step"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_it_is_joined_to_the_clients_own(role: str) -> None:
    asked = ruled(question("Why?", SMALL, SYSTEM | {"role": role}), used(text=RHYME))
    made = plan(asked, fleet())
    first, *rest = messages_for(made, made.steps[0], {})
    assert (first["role"], text_of(first)) == (role, f"Be brief.\n\n{RHYME}")
    assert [message["role"] for message in rest] == ["user"]


def test_several_prompts_are_told_in_their_order_and_the_same_one_once() -> None:
    rules = [used(str(n), text=text) for n, text in enumerate(["One.", "Two.", "One."])]
    made = plan(ruled(question("Why?", SMALL), *rules), fleet())
    assert said(made, made.steps[0]) == ["One.\n\nTwo."]


@pytest.mark.parametrize("arm", [Arm.CONTROL, Arm.SHADOW])
def test_what_does_not_apply_is_recorded_and_says_nothing(arm: Arm) -> None:
    rule = used(text=RHYME, arm=arm)
    made = plan(ruled(question("Why?", SMALL), rule), fleet())
    assert made.rules == (rule,)
    assert not any(says_it(made).values())


@pytest.mark.parametrize("arm", [Arm.CONTROL, Arm.SHADOW])
@pytest.mark.parametrize(
    "says",
    [{"model": CODER}, {"strategy": "crew"}, {"split": True}, {"split": False}, {"max_parts": 2}],
    ids=["model", "strategy", "split", "whole", "parts"],
)
def test_no_other_rule_acts_either_where_it_does_not_apply(says: dict[str, Any], arm: Arm) -> None:
    for name in ("auto", "split", "direct"):
        asked = question(THREE.replace("for it", "for a parser"), f"millrace/{name}")
        without, under = plan(asked, fleet()), plan(ruled(asked, used(arm=arm, **says)), fleet())
        assert under.model_copy(update={"rules": ()}) == without


def test_all_parts_and_the_synthesis_are_told() -> None:
    made = plan(ruled(question(COMPARE), used(text=RHYME)), fleet())
    assert made.steps[-1].kind is StepKind.SYNTHESIS
    assert set(says_it(made).values()) == {True}


def test_a_prompt_for_a_model_is_told_to_that_one_only() -> None:
    made = plan(ruled(question(THREE), used(text=RHYME, only=CODER)), fleet())
    assert {step.model: says_it(made)[step.key] for step in made.steps} == {
        SMALL: False,
        CODER: True,
    }


ACCEPTED = told({"research": "Notes.", "draft": "A text.", "review": '{"verdict": "reject"}'})
REJECTED = told({"research": "n", "draft": "d", "review": '{"verdict": "reject"}', "revision": "r"})
POOR = told({"classify": '{"kind": "factual"}', "answer": "a", "check": '{"score": 1}',
             "escalation": "b"})  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "answers", "read"),
    [
        ("crew", REJECTED, {"draft", "revision"}),
        ("router", POOR, {"answer", "escalation"}),
        ("ensemble", lambda *_: '{"scores": [1, 2, 3]}', {f"candidate-{n}" for n in (1, 2)}),
    ],
)
def test_steps_that_are_read_are_told_and_judges_and_planners_are_not(
    strategy: str, answers: Any, read: set[str]
) -> None:
    asked = ruled(question("Why is the sea salt?", f"millrace/{strategy}"), used(text=RHYME))
    made, _ = carry_out(asked, fleet(), answers)
    assert made.rules == asked.rules
    assert {key for key, told_it in says_it(made).items() if told_it} == read


def test_a_background_prompt_is_told_nothing() -> None:
    asked = ruled(question("Name it.", SMALL, task="title_generation"), used(text=RHYME))
    made = plan(asked, fleet())
    assert made.rules == ()
    assert says_it(made) == {"answer": False}


def test_what_grows_keeps_the_rules_of_its_plan() -> None:
    known = fleet(roles={"plan": SMALL})
    asked = question(LONG, "millrace/split")
    made = plan(ruled(asked, used(text=RHYME)), known)
    assert says_it(made) == {"plan": False}
    for outcome in (Outcome("nonsense"), Outcome(failed=True)):
        grown = grow(asked, known, made, {"plan": outcome})
        assert says_it(grown) == {"plan": False, "answer": True}


# --- routes --------------------------------------------------------------------------------------


def model_of(made: Plan) -> str:
    return made.steps[-1].model


def routed(asked: Question, *rules: UsedRule, known: Fleet | None = None) -> str:
    return model_of(plan(ruled(asked, *rules), known or fleet()))


def test_a_route_says_which_model_answers() -> None:
    assert routed(question("Why?", "millrace/direct")) == SMALL
    assert routed(question("Why?", "millrace/direct"), used(model=CODER)) == CODER


def test_a_route_is_nothing_to_a_client_that_names_a_model() -> None:
    assert routed(question("Why?", SMALL), used(model=CODER)) == SMALL


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        (question("Why?", "millrace/auto"), "gone"),
        (question("Why?", "millrace/auto"), QUOTER),
        (question("Why?", "millrace/auto", tools=TOOLS), CODER),
        (question("What is it?", "millrace/auto", IMAGE), CODER),
        (question("x " * 6_000, "millrace/auto"), "tiny"),
    ],
    ids=["gone", "quotes", "no tools", "sees nothing", "too small"],
)
def test_a_route_to_a_model_that_cannot_do_it_is_left_out(asked: Question, model: str) -> None:
    able = {Capability.CHAT, Capability.TOOLS, Capability.VISION}
    tiny = Model.model_validate(
        {"name": "tiny", "provider": "ollama", "context_length": 512, "max_output_tokens": 64}
    )
    quoting = Model.model_validate({"name": QUOTER, "provider": "extractive"})
    known = fleet(small(capabilities=able), coder(), tiny, quoting)
    assert routed(asked, used(model=model), known=known) == SMALL


def test_models_are_redirected_and_a_circle_ends() -> None:
    third = small(name="third")
    known = fleet(small(), coder(), third)
    asked = question("Why?", "millrace/direct")
    there, on, back = (
        used("there", model=CODER, only=SMALL),
        used("on", model="third", only=CODER),
        used("back", model=SMALL, only="third"),
    )
    assert routed(asked, there, known=known) == CODER
    assert routed(asked, there, on, known=known) == "third"
    assert routed(asked, there, on, back, known=known) == "third"
    assert routed(asked, on, known=known) == SMALL
    assert routed(asked, used(model=CODER), there, known=known) == CODER


def test_the_first_of_two_routes_counts() -> None:
    known = fleet(small(), coder(), small(name="third"))
    rules = used("one", model=CODER), used("two", model="third")
    assert routed(question("Why?", "millrace/direct"), *rules, known=known) == CODER


def test_parts_go_where_a_route_says_if_that_model_can_do_them() -> None:
    made = plan(ruled(question(THREE), used(model=CODER)), fleet())
    assert {step.model for step in made.steps} == {CODER}
    made = plan(ruled(question(THREE), used(model=SMALL)), fleet())
    assert [step.model for step in made.steps] == [SMALL, CODER, CODER]


def test_what_is_told_counts_when_a_model_must_have_room() -> None:
    asked = question("word " * 4_800, "millrace/direct")
    assert routed(asked) == SMALL
    assert routed(asked, used(text="word " * 400)) == CODER


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [2, 3, 8, 12, 16])
def test_a_rule_says_how_many_parts_there_may_be(most: int) -> None:
    made = plan(ruled(question(LIST), used(max_parts=most)), fleet())
    assert len(made.steps) == min(most, 12)
    text = "\n".join(text_of(step.messages[-1]) for step in made.steps)
    assert all(f"topic number {number}" in text for number in range(1, 13))


def test_things_that_are_compared_are_grouped() -> None:
    made = plan(ruled(question(COMPARE), used(max_parts=2)), fleet())
    *parts, synthesis = made.steps
    assert [step.title for step in parts] == ["Postgres, MySQL", "SQLite"]
    assert synthesis.depends_on == ("part-1", "part-2")


def test_a_planning_model_is_told_how_many_parts_there_may_be() -> None:
    known, rules = fleet(roles={"plan": SMALL}), used(max_parts=2)
    asked = ruled(question(LONG), rules)
    made = plan(asked, known)
    assert "2 to 2 parts" in text_of(made.steps[0].messages[0])
    parts = [f'{{"title": "T{n}", "prompt": "p{n}"}}' for n in range(3)]
    outcomes: Outcomes = {"plan": Outcome(f'{{"parts": [{", ".join(parts)}]}}')}
    grown = grow(asked, known, made, outcomes)
    assert grown.strategy == "direct"
    assert "more than 2 parts" in grown.reason


# --- what holds for a question -------------------------------------------------------------------


def under(asked: Question, *rules: Any, known: Fleet | None = None) -> Question:
    return under_rules(named(asked), rules, REQUEST, known or fleet())


def test_without_rules_a_question_is_what_it_was() -> None:
    asked = question("Why?")
    assert under(asked) is asked
    assert under(asked, rule(scope={"topic": ["weather"]})) is asked


def test_a_background_prompt_has_no_rules() -> None:
    asked = question("Name it.", SMALL, task="title_generation")
    assert asked_of(asked) is None
    assert under(asked, rule()).rules == ()


def test_an_unknown_model_is_left_to_planning() -> None:
    for name in ("gone", "millrace/gone"):
        assert under(question("Why?", name), rule()).model == name


@pytest.mark.parametrize(
    "gone",
    [
        rule(model="gone"),
        rule(scope={"model": "gone"}),
        rule(model="nomic-embed-text"),
        rule(strategy="gone"),
        rule(strategy="auto"),
    ],
)
def test_a_rule_that_names_what_is_not_there_any_more_does_not_hold(gone: Any) -> None:
    assert under(question("Why?", "millrace/auto"), gone).rules == ()


@pytest.mark.parametrize("state", [RuleState.ACTIVE, RuleState.SHADOW])
def test_a_rule_of_no_step_holds_where_the_model_of_the_whole_does(state: RuleState) -> None:
    for model, count in ((SMALL, 1), (CODER, 0)):
        split = rule(scope={"model": model}, split=False, state=state)
        assert len(under(question("Why?", "millrace/auto"), split).rules) == count


def test_topics_are_looked_for_in_the_users_own_words() -> None:
    text = rag_prompt("What turns it?", ("4", "a.md", "The weather does."))
    asked = asked_of(question(text))
    assert asked is not None
    assert asked.text == "What turns it?"


def test_prompts_never_push_the_question_out_of_the_context() -> None:
    long = "word " * 390
    rules = [rule(str(number), text=f"{number} {long}") for number in range(40)]
    asked = under(question("word " * 4_000, SMALL), *rules)
    assert 1 < len(asked.rules) < 10
    assert under(question("word " * 6_500, SMALL), *rules).rules == ()


# --- lookups -------------------------------------------------------------------------------------


def looking(**body: Any) -> Question:
    return replace(question("Why?", "millrace/auto"), retrieval=Retrieval.model_validate(body))


def wanted(asked: Question) -> tuple[str, int, int, bool, bool]:
    given = asked.retrieval
    assert given is not None
    return given.collection, given.top, given.candidates, given.only, given.optional


def test_a_rule_says_how_much_is_looked_up_where_the_client_does_not() -> None:
    more = rule(top=7, candidates=40)
    assert wanted(under(looking(), more))[1:3] == (7, 40)
    assert wanted(under(looking(top=3), more))[1:3] == (3, 40)
    handbook = question("Why?", "millrace/rag:handbook")
    assert wanted(under(handbook, more)) == ("handbook", 7, 40, True, False)


def test_the_narrower_of_two_such_rules_counts() -> None:
    wide, narrow = rule("a", top=7, candidates=40), rule("b", scope={"strategy": "auto"}, top=5)
    assert wanted(under(looking(), wide, narrow))[1:3] == (5, 40)


def test_a_control_changes_nothing_and_is_recorded() -> None:
    tried = rule(top=7, state=RuleState.CANARY, share=1e-9)
    asked = under(looking(), tried)
    assert [(each.arm, each.kind, each.change) for each in asked.rules] == [
        (Arm.CONTROL, "retrieval", None)
    ]
    assert wanted(asked)[1] == 3


def test_where_nothing_is_looked_up_such_a_rule_does_not_hold() -> None:
    assert under(question("Why?", "millrace/auto"), rule(top=7)).rules == ()


@pytest.mark.parametrize(("strategy", "only"), [("rag", True), ("router", False)])
def test_a_route_to_documents_looks_them_up_if_there_are_any(strategy: str, only: bool) -> None:
    routed, more = rule("a", strategy=strategy), rule("b", top=7)
    asked = under(question("Why?", "millrace/auto"), routed, more)
    assert wanted(asked) == ("default", 7, 10, only, True)
    assert len(asked.rules) == 2
    assert plan(asked, fleet()).strategy == strategy


def test_a_plan_does_not_repeat_what_says_nothing_to_its_steps() -> None:
    many = [rule(f"r-{n}", text="word " * 390, state=RuleState.SHADOW) for n in range(20)]
    asked = under(question("Why?", SMALL), *many, rule(text=RHYME))
    stored = plan(asked, fleet()).model_dump_json(exclude_defaults=True)
    assert len(plan(asked, fleet()).rules) == 21
    assert len(stored) < 5_000
    assert asked.rules == Plan.model_validate_json(stored).rules


def test_which_request_it_is_decides_the_arm() -> None:
    tried = rule(state=RuleState.CANARY, share=0.5)
    asked = question("Why?", SMALL)
    arms = {under_rules(asked, [tried], uuid4(), fleet()).rules[0].arm for _ in range(100)}
    assert arms == {Arm.CANARY, Arm.CONTROL}
