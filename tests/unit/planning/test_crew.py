"""Notes, a draft, a review, and one revision."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.planning.chat import text_of
from master.planning.growth import Outcome, beginning
from master.planning.plan import JudgementKind, StepKind
from master.planning.strategies import grow, plan
from tests.unit.planning.fleets import CODER, SMALL, fleet, question
from tests.unit.planning.growing import carry_out, prompt, told, unexplained

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = question("Write about mills.", "millrace/crew", SYSTEM)


def review(verdict: str, comments: str = "Say more.", score: float = 50) -> str:
    return json.dumps({"comments": comments, "score": score, "verdict": verdict})


ACCEPTED = {"research": "notes", "draft": "a draft", "review": review("accept", score=80)}
REJECTED = ACCEPTED | {"review": review("reject"), "revision": "a better text"}


def test_a_draft_that_is_accepted_is_the_answer():
    made, outcomes = carry_out(ASKED, fleet(), told(ACCEPTED))
    assert list(outcomes) == ["research", "draft", "review"]
    assert made.chosen == "draft"
    [judgement] = made.judgements
    assert judgement.kind is JudgementKind.REVIEW
    assert (judgement.passed, judgement.scores) == (True, {"draft": 80})


def test_a_draft_that_is_rejected_is_revised_once():
    made, outcomes = carry_out(ASKED, fleet(), told(REJECTED))
    assert list(outcomes) == ["research", "draft", "review", "revision"]
    assert made.chosen == "revision"
    assert made.judgements[0].reason == "Say more."


def test_each_sees_what_was_done_before():
    prompts = {}

    def model(step, text):
        prompts[step.key] = text
        return REJECTED[step.key]

    carry_out(ASKED, fleet(), model)
    assert "Write about mills." in prompts["research"]
    assert "Notes:\nnotes" in prompts["draft"]
    assert all(said in prompts["review"] for said in ("Notes:\nnotes", "Draft:\na draft"))
    revision = prompts["revision"]
    assert all(said in revision for said in ("Notes:\nnotes", "Draft:\na draft", "Say more."))


def test_the_writer_keeps_the_instructions_of_the_conversation_in_one_message():
    made, _ = carry_out(ASKED, fleet(), told(REJECTED))
    for step in made.steps:
        systems = [m for m in step.messages if m["role"] == "system"]
        assert len(systems) <= 1, "some templates know only one"
        if step.kind is StepKind.CANDIDATE:
            assert "Be brief." in text_of(systems[0])


def test_the_revision_is_shown_while_it_is_written():
    made = plan(ASKED, fleet())
    outcomes: dict[str, Outcome] = {}
    for key in ("research", "draft", "review"):
        outcomes[key] = Outcome(REJECTED[key])
        made = grow(ASKED, fleet(), made, outcomes)
    assert made.chosen == "revision"
    assert "Draft:" in prompt(made, made.steps[-1], outcomes)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (ACCEPTED | {"research": None}, "draft"),
        (ACCEPTED | {"draft": None}, ""),
        (ACCEPTED | {"draft": " "}, ""),
        (ACCEPTED | {"review": None}, "draft"),
        (ACCEPTED | {"review": "Looks good to me!"}, "draft"),
        (ACCEPTED | {"review": '{"verdict": "maybe"}'}, "draft"),
        (REJECTED | {"revision": None}, "draft"),
    ],
    ids=[
        "no notes",
        "no draft",
        "an empty draft",
        "no review",
        "an unreadable review",
        "an odd verdict",
        "no revision",
    ],
)
def test_who_fails_is_done_without(given, chosen):
    made, _ = carry_out(ASKED, fleet(), told(given))
    assert made.chosen == chosen


def test_a_revision_that_broke_off_stays():
    made, outcomes = carry_out(ASKED, fleet(), told(REJECTED))
    broken = {**outcomes, "revision": Outcome("a bett", failed=True)}
    assert grow(ASKED, fleet(), made, broken).chosen == "revision"


def test_the_registry_says_who_does_what():
    roles = {"research": SMALL, "write": CODER, "judge": SMALL}
    made, _ = carry_out(ASKED, fleet(roles=roles), told(REJECTED))
    assert [step.model for step in made.steps] == [SMALL, CODER, SMALL, CODER]


def test_done_again_it_begins_with_the_research():
    made, _ = carry_out(ASKED, fleet(), told(REJECTED))
    assert unexplained(beginning(made)) == unexplained(plan(ASKED, fleet()))


@given(st.lists(st.none() | st.text(max_size=60), min_size=4, max_size=4))
def test_whatever_the_models_say_it_ends_with_an_answer_that_is_there(texts):
    said = dict(zip(("research", "draft", "review", "revision"), texts, strict=True))
    made, outcomes = carry_out(ASKED, fleet(), told(said))
    assert made.chosen == "" or outcomes[made.chosen].usable
    assert (made.chosen == "") is not outcomes["draft"].usable
