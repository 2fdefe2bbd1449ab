"""Which texts make up an answer, in which order and under which headings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from master.planning.plan import AggregatorName, Plan, Step, StepKind


@dataclass(frozen=True)
class Segment:
    """One stretch of the answer: the text of one step under an optional heading."""

    step_key: str
    heading: str = ""
    """Markdown with its line breaks; empty for an answer that is not in sections."""
    label: str = "The question"
    """How a note names it when it is missing, for example `Part 2 (Costs)`."""


def layout(plan: Plan) -> tuple[Segment, ...]:
    """The segments of the plan's answer; none while its answering steps are not known yet."""
    return LAYOUTS[plan.aggregator](plan)


def fallback_layout(plan: Plan) -> tuple[Segment, ...]:
    """The parts as sections, for when the synthesis failed.

    Only legal while nothing has been shown: the synthesis's text cannot be taken back.
    """
    return _sections(plan)


def _single(plan: Plan) -> tuple[Segment, ...]:
    steps = _of_kind(plan, StepKind.ANSWER) or _of_kind(plan, StepKind.TASK)
    return tuple(Segment(step.key) for step in steps[:1])


def _synthesis(plan: Plan) -> tuple[Segment, ...]:
    return tuple(Segment(step.key) for step in _of_kind(plan, StepKind.SYNTHESIS)[:1])


def _chosen(plan: Plan) -> tuple[Segment, ...]:
    return (Segment(plan.chosen),) if plan.chosen else ()


def _sections(plan: Plan) -> tuple[Segment, ...]:
    steps = _of_kind(plan, StepKind.ANSWER)
    return tuple(_section(number, step) for number, step in enumerate(steps, start=1))


def _section(number: int, step: Step) -> Segment:
    title = " ".join(step.title.split())
    if not title:
        return Segment(step.key, label=f"Part {number}")
    return Segment(step.key, f"## {title}\n\n", f"Part {number} ({title})")


def _of_kind(plan: Plan, kind: StepKind) -> list[Step]:
    return [step for step in plan.steps if step.kind is kind]


LAYOUTS: Mapping[AggregatorName, Callable[[Plan], tuple[Segment, ...]]] = {
    AggregatorName.SINGLE: _single,
    AggregatorName.SECTIONS: _sections,
    AggregatorName.SYNTHESIS: _synthesis,
    AggregatorName.CHOSEN: _chosen,
}
