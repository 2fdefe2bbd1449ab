"""Giving a step the results it depends on, when they are there."""

from collections.abc import Mapping

from master.planning.chat import ChatMessage, last_user, text_of, with_text
from master.planning.effects import told
from master.planning.growth import instructed
from master.planning.language import Phrases, phrases_for
from master.planning.plan import Plan, Step, StepKind
from master.planning.quoting import quoted

_ANSWERING = frozenset({StepKind.ANSWER, StepKind.CANDIDATE, StepKind.SYNTHESIS})
"""Kinds of steps whose texts people read; rules say nothing to the others."""


def messages_for(
    plan: Plan, step: Step, inputs: Mapping[str, str | None]
) -> tuple[ChatMessage, ...]:
    """The step's messages with the texts of its dependencies put in, and what rules say to it.

    An input that is None, or not there, is missing, and the model is told so.
    """
    says = told(plan.rules, step.model) if step.kind in _ANSWERING else ""
    return instructed(_with_inputs(plan, step, inputs), says)


def _with_inputs(
    plan: Plan, step: Step, inputs: Mapping[str, str | None]
) -> tuple[ChatMessage, ...]:
    place = last_user(step.messages)
    if not step.depends_on or place is None:
        return step.messages
    text = text_of(step.messages[place])
    added = _results(plan, step, inputs, phrases_for(text))
    messages = list(step.messages)
    messages[place] = with_text(step.messages[place], f"{text}\n\n{added}")
    return tuple(messages)


def _results(plan: Plan, step: Step, inputs: Mapping[str, str | None], phrases: Phrases) -> str:
    labels = dict(zip(step.depends_on, step.labels, strict=False)) or _labels(plan, phrases)
    present: list[tuple[str, str]] = []
    missing: list[str] = []
    for key in step.depends_on:
        text, label = inputs.get(key), labels.get(key, key)
        if text is None:
            missing.append(phrases.missing.format(label=label))
        else:
            present.append((f"{label}:", text))
    quotes = [phrases.inputs, quoted("results", present)] if present else []
    return "\n\n".join([*quotes, *missing])


def _labels(plan: Plan, phrases: Phrases) -> dict[str, str]:
    parts = [step for step in plan.steps if step.kind is StepKind.ANSWER]
    return {
        step.key: " ".join(f"{phrases.part.format(number=number)} ({step.title})".split())
        for number, step in enumerate(parts, start=1)
    }
