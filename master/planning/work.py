"""Which kind of work a step is: what people say of its answer counts for that kind. Pure."""

import re

from master.planning.chat import last_user, text_of
from master.planning.plan import Plan, Step, StepKind
from master.planning.question import Question
from master.rules.bandit import Work
from queue_schemas.registry import Capability

_JUDGED_KINDS = frozenset({StepKind.ANSWER, StepKind.CANDIDATE})
_LONGEST_LOOK = 600
"""Characters of a question: what it is about is said soon, and every request is looked at."""
_CODE = (
    "code coding function method class script program python javascript typescript java rust golang"
    " c++ sql regex bash shell html css dockerfile yaml bug refactor implement implementation"
    " compile compiler unittest funktion skript programm programmiere programmierung quellcode"
    " klasse methode implementiere"
)
_CODE_WORDS = frozenset(_CODE.split())


def work_of(question: Question) -> Work:
    """The work of answering a question as a whole."""
    if question.retrieval is not None:
        return Work.RAG
    place = last_user(question.messages)
    text = "" if place is None else text_of(question.messages[place])
    return Work.CODE if _is_about_code(text[:_LONGEST_LOOK].lower()) else Work.ANSWER


def part_work(kind: Capability) -> Work:
    """The work of answering a part."""
    return Work.CODE if kind is Capability.CODE else Work.PART


def labelled(question: Question, plan: Plan) -> Plan:
    """The plan with the work of every step that answers and does not say it yet."""
    if all(map(_is_clear, plan.steps)):
        return plan
    work = work_of(question)
    steps = [
        step if _is_clear(step) else step.model_copy(update={"work": work}) for step in plan.steps
    ]
    return plan.model_copy(update={"steps": tuple(steps)})


def _is_about_code(text: str) -> bool:
    return "```" in text or not _CODE_WORDS.isdisjoint(re.findall(r"[\w+]+", text))


def _is_clear(step: Step) -> bool:
    return step.work is not None or step.kind not in _JUDGED_KINDS
