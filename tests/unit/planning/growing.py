"""Carrying a growing plan out with models that are functions."""

from collections.abc import Callable, Mapping

from master.planning.chat import text_of
from master.planning.compose import messages_for
from master.planning.growth import Outcome
from master.planning.plan import Plan, Step
from master.planning.question import Fleet, Question
from master.planning.strategies import grow, plan

Model = Callable[[Step, str], str | None]
"""What a step's model answers to its prompt; None: it fails."""


def carry_out(asked: Question, fleet: Fleet, answers: Model) -> tuple[Plan, dict[str, Outcome]]:
    """The plan as it is in the end, and how its steps ended. Steps end one after the other."""
    made = plan(asked, fleet)
    outcomes: dict[str, Outcome] = {}
    for _ in range(50):
        waiting = [step for step in made.steps if step.key not in outcomes]
        if not waiting:
            return made, outcomes
        step = waiting[0]
        outcomes[step.key] = outcome(answers(step, prompt(made, step, outcomes)))
        grown = grow(asked, fleet, made, outcomes)
        assert grown.steps[: len(made.steps)] == made.steps, "a step was taken back"
        assert grow(asked, fleet, grown, outcomes) == grown, "asked again, it grew again"
        assert Plan.model_validate(grown.model_dump()) == grown
        made = grown
    raise AssertionError("it grows for ever")


def outcome(text: str | None) -> Outcome:
    return Outcome(failed=True) if text is None else Outcome(text)


def prompt(plan: Plan, step: Step, outcomes: Mapping[str, Outcome]) -> str:
    """All that the step's model is told."""
    inputs = {key: None if outcomes[key].failed else outcomes[key].text for key in step.depends_on}
    return "\n".join(text_of(message) for message in messages_for(plan, step, inputs))


def told(answers: Mapping[str, str | None]) -> Model:
    """Models that answer by the step's key."""
    return lambda step, _: answers[step.key]


def unexplained(plan: Plan) -> Plan:
    """The plan without its reason, which says what came of it."""
    return plan.model_copy(update={"reason": ""})
