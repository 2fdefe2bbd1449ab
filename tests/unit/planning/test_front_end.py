import pytest

from master.planning.front_end import background_task
from master.planning.plan import AggregatorName, StepKind
from master.planning.strategies import UnknownModel, plan
from tests.unit.planning.fleets import CODER, SMALL, fleet, question
from tests.unit.planning.templates import MEMORY_REVIEW, TASKS, rag_prompt


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", ["millrace/auto", "millrace/split", CODER])
def test_a_stock_template_is_recognised_and_goes_whole_to_the_cheapest_model(task, model):
    asked = question(TASKS[task], model, stream=False, max_tokens=1000)
    assert background_task(asked) == task
    made = plan(asked, fleet())
    assert (made.strategy, made.aggregator) == ("direct", AggregatorName.SINGLE)
    assert [(step.kind, step.model) for step in made.steps] == [(StepKind.TASK, SMALL)]
    assert made.steps[0].messages == asked.messages
    assert made.steps[0].parameters == {"max_tokens": 1000}


def test_the_header_decides_before_the_prompt():
    asked = question("1. What is a?\n2. What is b?", task="title_generation", stream=True)
    assert plan(asked, fleet()).steps[0].kind is StepKind.TASK


def test_memory_review_is_known_by_its_system_message():
    assert (
        background_task(question("1. a\n2. b", "millrace/auto", MEMORY_REVIEW)) == "memory_review"
    )


@pytest.mark.parametrize("streamed", [True, False])
def test_a_question_with_an_attached_file_is_a_persons(streamed):
    text = rag_prompt("What drives the mill?", ("1", "mill.txt", 'A title: {"title": "x"}'))
    assert background_task(question(text, stream=streamed)) is None


@pytest.mark.parametrize(
    "parameters", [{"stream": True}, {"tools": [{"type": "function"}]}], ids=["streamed", "tools"]
)
def test_a_person_who_asks_about_such_a_prompt_is_not_mistaken(parameters):
    asked = question(f"What does this do?\n{TASKS['title_generation']}", **parameters)
    assert background_task(asked) is None


@pytest.mark.parametrize("text", ["", "### Task:\nWrite a poem about mills.", "Tag this: mill"])
def test_an_ordinary_question_is_a_persons(text):
    assert background_task(question(text)) is None


def test_the_task_role_wins_over_the_price():
    made = plan(question(TASKS["tags_generation"]), fleet(roles={"task": CODER}))
    assert made.steps[0].model == CODER


def test_merging_answers_is_not_for_the_cheapest_model():
    made = plan(question(TASKS["moa_response_generation"]), fleet(roles={"synthesis": CODER}))
    assert made.steps[0].model == CODER


def test_an_unknown_model_is_refused_for_background_prompts_too():
    with pytest.raises(UnknownModel):
        plan(question("x", "gone", task="title_generation"), fleet())
