"""Several answers to one question, of which one is shown or made."""

import json
import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.planning.chat import text_of
from master.planning.growth import Outcome, beginning
from master.planning.plan import AggregatorName, StepKind
from master.planning.strategies import grow, plan
from queue_schemas.registry import Ensemble, Registry
from tests.unit.planning.fleets import CODER, SMALL, coder, fleet, question, small
from tests.unit.planning.growing import carry_out, told, unexplained

ASKED = question("Why is the sea salt?", "millrace/ensemble")
THREE = (small(), coder(), small(name="third", price={"prompt": 9, "completion": 9}))


def known(**changes):
    found = fleet(*THREE, roles=changes.pop("roles", {}))
    registry = Registry(
        models=found.registry.models, roles=found.registry.roles, ensemble=Ensemble(**changes)
    )
    return found.__class__(registry, free_slots=found.free_slots)


def verdict(*scores: float, reason: str = "it is right") -> str:
    return json.dumps({"reason": reason, "scores": scores})


def answers(**given: str | None):
    texts = {f"candidate-{n}": f"answer {n}" for n in (1, 2, 3)}
    return told({**texts, "judge-1": verdict(10, 90, 20), "judge-2": verdict(20, 90, 10), **given})


def test_every_candidate_gets_the_question_and_the_best_is_chosen():
    made, _ = carry_out(ASKED, known(), answers())
    candidates = [step for step in made.steps if step.kind is StepKind.CANDIDATE]
    assert [step.model for step in candidates] == [SMALL, CODER, "third"]
    assert all(step.messages == ASKED.messages for step in candidates)
    assert all(step.seconds == 120 for step in candidates)
    assert (made.strategy, made.aggregator) == ("ensemble", AggregatorName.CHOSEN)
    assert made.chosen == "candidate-2"
    assert made.reason.startswith(f"3 answers; Answer 2 by {CODER} is shown: it has the best")
    assert [judgement.scores["candidate-2"] for judgement in made.judgements] == [90, 90]


@pytest.mark.parametrize("order", list(permutations((80.0, 50.0, 20.0))))
def test_a_judge_that_prefers_a_place_is_cancelled_out(order):
    """Both give the first answer that they see 30 more than it deserves."""

    def biased(step, prompt):
        if step.kind is not StepKind.JUDGE:
            return f"worth {order[int(step.key[-1]) - 1]:g}"
        seen = [float(found) for found in re.findall(r"worth (\d+)", prompt)]
        return verdict(min(100, seen[0] + 30), *seen[1:])

    made, _ = carry_out(ASKED, known(), biased)
    assert made.chosen == f"candidate-{order.index(80) + 1}"


def test_the_judges_see_the_conversation_and_the_answers_in_opposite_order():
    before = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ahoy!"})
    asked = question("Why is the sea salt?", "millrace/ensemble", *before)
    prompts = {}

    def model(step, prompt):
        prompts[step.key] = prompt
        return answers()(step, prompt)

    carry_out(asked, known(), model)
    for judge, order in (("judge-1", "123"), ("judge-2", "321")):
        assert "Ahoy!" in prompts[judge]
        found = re.findall(r"Answer (\d):\nanswer (\d)", prompts[judge])
        assert found == [(str(place), of) for place, of in enumerate(order, start=1)]


@pytest.mark.parametrize(
    ("failing", "chosen"),
    [
        ({"candidate-2": None}, "candidate-3"),
        ({"candidate-2": "  \n"}, "candidate-3"),
        ({"candidate-1": None, "candidate-2": None}, "candidate-3"),
        ({"candidate-1": None, "candidate-2": None, "candidate-3": None}, ""),
    ],
    ids=["one fails", "one says nothing", "one is left", "none"],
)
def test_candidates_that_fail_are_left_out(failing, chosen):
    scores = {"judge-1": verdict(10, 60), "judge-2": verdict(60, 10)}
    made, outcomes = carry_out(ASKED, known(), answers(**scores, **failing))
    assert made.chosen == chosen
    assert ("judge-1" in outcomes) is (len(failing) == 1)


def test_a_fusion_keeps_instructions_and_parameters_of_the_client():
    system = {"role": "system", "content": "Be brief."}
    asked = question("Why?", "millrace/ensemble", system, stop=["x"], seed=7)
    three = {f"candidate-{n}": Outcome(f"answer {n}") for n in (1, 2, 3)}
    found = known(mode="fuse")
    fusion = grow(asked, found, plan(asked, found), three).steps[-1]
    assert text_of(fusion.messages[0]).startswith("Be brief.")
    assert fusion.parameters == {"stop": ["x"], "seed": 7}


def test_a_minimum_that_no_number_of_candidates_can_reach_is_refused():
    with pytest.raises(ValueError, match=r"ensemble\.minimum is 3 of 2 candidates"):
        known(candidates=(CODER, "third"), minimum=3)


def test_fewer_answers_than_the_minimum_are_none():
    made, _ = carry_out(ASKED, known(minimum=3), answers(**{"candidate-1": None}))
    assert (made.chosen, made.judgements) == ("", ())


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (None, "it failed"),
        ("The second.", "it is not JSON"),
        (verdict(1, 2), "it has 2 scores for 3 answers"),
        (verdict(1, 2, 300), "scores.2: Input should be less than or equal to 100"),
        ('{"scores": [1, 2, NaN]}', "scores.2"),
    ],
)
def test_a_judge_that_says_nothing_usable_leaves_it_to_the_other(first, problem):
    second = verdict(90, 50, 10)  # it sees them backwards
    made, _ = carry_out(ASKED, known(), answers(**{"judge-1": first, "judge-2": second}))
    assert made.chosen == "candidate-3"
    assert problem in made.judgements[0].problem
    assert made.judgements[1].problem == ""


def test_without_a_usable_verdict_the_first_answer_is_taken():
    made, _ = carry_out(ASKED, known(), answers(**{"judge-1": "?", "judge-2": None}))
    assert made.chosen == "candidate-1"
    assert all(judgement.problem for judgement in made.judgements)
    assert "no judge gave a usable verdict" in made.reason


def test_the_optimiser_rewords_what_the_candidates_are_asked():
    found = known(roles={"optimise": SMALL})
    made, _ = carry_out(ASKED, found, answers(optimiser="Explain why sea water is salty."))
    assert made.steps[0].kind is StepKind.PREPARE
    assert text_of(made.steps[1].messages[-1]) == "Explain why sea water is salty."


@pytest.mark.parametrize("wording", [None, "", "word " * 2000])
def test_a_wording_that_cannot_be_used_leaves_the_question_as_it_is(wording):
    made, _ = carry_out(ASKED, known(roles={"optimise": SMALL}), answers(optimiser=wording))
    assert made.steps[1].messages == ASKED.messages
    assert made.chosen == "candidate-2"


def test_a_question_that_brings_its_material_is_not_reworded():
    asked = question("Summarise this: " + "word " * 2000, "millrace/ensemble")
    assert plan(asked, known(roles={"optimise": SMALL})).steps[0].kind is StepKind.CANDIDATE


def test_one_model_alone_answers_several_times_and_differently():
    asked = question("Why?", "millrace/ensemble")
    steps = plan(asked, fleet(small())).steps
    assert [step.model for step in steps] == [SMALL] * 3
    assert len({step.parameters["temperature"] for step in steps}) == 3


def test_the_registry_says_who_answers_and_who_judges():
    found = known(candidates=(CODER, "third"), roles={"judge": SMALL})
    scores = {"judge-1": verdict(9, 1), "judge-2": verdict(1, 9)}
    made, _ = carry_out(ASKED, found, answers(**scores))
    assert [step.model for step in made.steps] == [CODER, "third", SMALL, SMALL]
    assert made.chosen == "candidate-1"


def test_a_fusion_is_shown_while_it_is_written():
    found = known(mode="fuse")
    asked_again = plan(ASKED, found)
    three = {f"candidate-{n}": Outcome(f"answer {n}") for n in (1, 2, 3)}
    grown = grow(ASKED, found, asked_again, three)
    assert (grown.steps[-1].key, grown.chosen) == ("fusion", "fusion")
    assert grown.steps[-1].depends_on == ("candidate-1", "candidate-2", "candidate-3")


@pytest.mark.parametrize(
    ("fused", "chosen"),
    [
        (Outcome("All of it."), "fusion"),
        (Outcome(failed=True), "candidate-1"),
        (Outcome("All o", failed=True), "fusion"),
        (Outcome("\n\n"), "fusion"),
    ],
    ids=["whole", "said nothing", "broke off", "only blanks, which are shown already"],
)
def test_a_fusion_that_said_nothing_gives_way_to_the_first_answer(fused, chosen):
    found = known(mode="fuse")
    three = {f"candidate-{n}": Outcome(f"answer {n}") for n in (1, 2, 3)}
    grown = grow(ASKED, found, plan(ASKED, found), three)
    assert grow(ASKED, found, grown, {**three, "fusion": fused}).chosen == chosen


def test_what_cannot_be_compared_is_answered_by_one():
    asked = question("Why?", "millrace/ensemble", tools=[{"type": "function"}])
    made = plan(asked, known())
    assert (made.strategy, len(made.steps)) == ("direct", 1)


def test_done_again_it_begins_at_the_beginning():
    made, _ = carry_out(ASKED, known(), answers())
    assert unexplained(beginning(made)) == unexplained(plan(ASKED, known()))


@given(st.lists(st.none() | st.text(max_size=60), min_size=6, max_size=6))
def test_whatever_the_models_say_it_ends_with_an_answer_that_is_there(texts):
    def model(step, _):
        return texts[sum(map(ord, step.key)) % 6]

    made, outcomes = carry_out(ASKED, known(roles={"optimise": SMALL}), model)
    good = [key for key in outcomes if key.startswith("candidate") and outcomes[key].usable]
    assert made.chosen in (good or [""])
