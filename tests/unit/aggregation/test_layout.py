import pytest

from master.aggregation.layout import LAYOUTS, fallback_layout, layout
from master.planning.plan import AggregatorName, Plan, Step, StepKind


def _plan(aggregator: AggregatorName, *steps: tuple[str, StepKind, str]) -> Plan:
    made = [
        Step(key=key, kind=kind, title=title, model="m", messages=()) for key, kind, title in steps
    ]
    return Plan(strategy="split", aggregator=aggregator, steps=tuple(made))


PARTS = (
    ("plan", StepKind.PLAN, "Plan"),
    ("part-1", StepKind.ANSWER, "Cost\nand time"),
    ("part-2", StepKind.ANSWER, ""),
    ("synthesis", StepKind.SYNTHESIS, ""),
)


def test_every_aggregator_has_a_layout():
    assert set(LAYOUTS) == set(AggregatorName)


def test_sections_have_one_line_headings_and_leave_out_the_planning_step():
    segments = layout(_plan(AggregatorName.SECTIONS, *PARTS))
    assert [(s.step_key, s.heading, s.label) for s in segments] == [
        ("part-1", "## Cost and time\n\n", "Part 1 (Cost and time)"),
        ("part-2", "", "Part 2"),
    ]


def test_a_synthesis_is_the_only_text_and_its_parts_are_the_fallback():
    plan = _plan(AggregatorName.SYNTHESIS, *PARTS)
    assert [s.step_key for s in layout(plan)] == ["synthesis"]
    assert [s.step_key for s in fallback_layout(plan)] == ["part-1", "part-2"]


@pytest.mark.parametrize("kind", [StepKind.ANSWER, StepKind.TASK])
def test_a_single_answer_has_no_heading(kind):
    segments = layout(_plan(AggregatorName.SINGLE, ("answer", kind, "Title")))
    assert [(s.step_key, s.heading) for s in segments] == [("answer", "")]


def test_a_plan_whose_parts_are_not_known_yet_has_no_segments():
    assert layout(_plan(AggregatorName.SECTIONS, ("plan", StepKind.PLAN, "Plan"))) == ()
