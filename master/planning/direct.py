"""The whole question to one model."""

from master.planning.context import find_context, without_context
from master.planning.grounding import looked_up
from master.planning.plan import AggregatorName, Gate, Plan, Step, StepKind
from master.planning.question import Question
from queue_schemas.messages import Passage
from queue_schemas.registry import Model, ProviderName

KEY = "answer"


def direct_plan(
    question: Question,
    model: Model,
    reason: str,
    *,
    kind: StepKind = StepKind.ANSWER,
    gate: Gate | None = None,
    before: tuple[Step, ...] = (),
) -> Plan:
    """One answering step; messages and parameters as they came. `before`: steps that ran first."""
    step = direct_step(question, model, kind)
    return Plan(
        strategy="direct",
        aggregator=AggregatorName.SINGLE,
        steps=(*before, step),
        gate=gate,
        reason=reason,
    )


def direct_step(question: Question, model: Model, kind: StepKind = StepKind.ANSWER) -> Step:
    """The step itself. Engines that read passages instead of prompts are given passages."""
    messages = question.messages
    passages: tuple[Passage, ...] = ()
    if model.provider is ProviderName.EXTRACTIVE and kind is StepKind.ANSWER:
        grounding = find_context(messages)
        messages = without_context(messages, grounding)
        passages = grounding.passages if grounding else ()
    return Step(
        key=KEY,
        kind=kind,
        model=model.name,
        messages=messages,
        parameters=dict(question.parameters),
        passages=passages,
        lookup=looked_up(question) if question.retrieval and kind is StepKind.ANSWER else "",
    )
