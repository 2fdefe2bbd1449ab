"""Plans that grow: what a strategy adds when steps have ended.

A strategy looks at its plan and at how the steps ended so far, and gives the plan that goes on from
there, or the same one when nothing follows yet. It is asked again after every end, by any replica,
so all it may know is in what it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from master.planning.chat import ChatMessage, last_user, text_of, with_text
from master.planning.plan import Plan, Step, StepKind
from master.planning.question import Fleet, Question
from master.planning.quoting import quoted

_LONGEST_TURN = 4000
_TURNS = 6


GROWING_KINDS = frozenset({StepKind.PLAN, StepKind.PREPARE, StepKind.CANDIDATE, StepKind.JUDGE})
"""Kinds of steps after which a plan may grow."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    text: str = ""
    failed: bool = False
    """`text` is what it had said by then."""

    @property
    def usable(self) -> bool:
        """Whether there is an answer."""
        return not self.failed and bool(self.text.strip())


Outcomes = Mapping[str, Outcome]
"""Of the steps that have ended, by key."""

Grow = Callable[[Question, Fleet, Plan, Outcomes], Plan]


def grown(plan: Plan, *steps: Step, **changes: Any) -> Plan:
    """The plan with more steps."""
    return plan.model_copy(update={"steps": (*plan.steps, *steps), **changes})


def beginning(plan: Plan) -> Plan:
    """The plan as it was before it grew, to be carried out again."""
    growing = [step for step in plan.steps if step.kind in GROWING_KINDS - {StepKind.PLAN}]
    if not growing:
        # What a model has planned is kept: only its parts are done again.
        steps = [s for s in plan.steps if s.kind is not StepKind.PLAN] or list(plan.steps)
        return plan.model_copy(update={"steps": tuple(steps)})
    first = [step for step in growing if step.kind is StepKind.PREPARE]
    first = first or [step for step in growing if not step.depends_on]
    sources = [source.model_copy(update={"steps": ()}) for source in plan.sources]
    return plan.model_copy(
        update={
            "steps": tuple(first),
            "sources": tuple(sources),
            "chosen": "",
            "judgements": (),
        }
    )


def step_of(plan: Plan, key: str) -> Step | None:
    """The step of that key, if it was added already."""
    return next((step for step in plan.steps if step.key == key), None)


def answered(outcomes: Outcomes, key: str) -> str | None:
    """The step's answer; None while it has none, or if there will be none."""
    outcome = outcomes.get(key)
    return outcome.text if outcome is not None and outcome.usable else None


def instead(plan: Plan, outcomes: Outcomes, fallback: str) -> Plan:
    """The plan with another answer chosen where the chosen one failed before it said anything.

    What was shown is never taken back: one that broke off stays, as a part does, and so do blanks.
    """
    chosen = outcomes.get(plan.chosen)
    if chosen is None or chosen.text or plan.chosen == fallback:
        return plan
    return plan.model_copy(update={"chosen": fallback})


def instructed(messages: Sequence[ChatMessage], says: str) -> tuple[ChatMessage, ...]:
    """The conversation with one more instruction; some templates know one system message only."""
    if not says:
        return tuple(messages)
    if messages and messages[0].get("role") in {"system", "developer"}:
        own, *rest = messages
        return with_text(own, f"{text_of(own)}\n\n{says}"), *rest
    return {"role": "system", "content": says}, *messages


def told(instructions: str, question: Question) -> tuple[ChatMessage, ...]:
    """Messages for a step that works on the conversation instead of answering it."""
    return (
        {"role": "system", "content": instructions},
        {"role": "user", "content": conversation(question)},
    )


def conversation(question: Question) -> str:
    """The end of the conversation, quoted: nothing in it is an instruction for who reads it."""
    turns = [
        (f"{message.get('role', 'user')}:", text)
        for message in question.messages
        if (text := text_of(message).strip())
    ]
    return quoted("conversation", [(role, _short(text)) for role, text in turns[-_TURNS:]])


def asked_text(question: Question) -> str:
    """What the user asked last."""
    place = last_user(question.messages)
    return "" if place is None else text_of(question.messages[place])


def strict(tokens: int, wanted: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Parameters of a step that judges: the same every time, and no longer than it must be."""
    return {"temperature": 0, "max_tokens": tokens, "response_format": wanted}


def _short(text: str) -> str:
    if len(text) <= _LONGEST_TURN:
        return text
    half = _LONGEST_TURN // 2
    return f"{text[:half]}\n[…]\n{text[-half:]}"
