"""When a client saw the first word: not when the first part of the work had one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from master.console.story import first_text_seconds
from master.planning.plan import AggregatorName, Plan, Step, StepKind

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
A, S, C, J, P = (
    StepKind.ANSWER,
    StepKind.SYNTHESIS,
    StepKind.CANDIDATE,
    StepKind.JUDGE,
    StepKind.PREPARE,
)


def plan(aggregator: AggregatorName, *steps: tuple[str, StepKind], chosen: str = "") -> Plan:
    made = tuple(Step(key=key, kind=kind, model="mill", messages=()) for key, kind in steps)
    return Plan(strategy="x", aggregator=aggregator, steps=made, chosen=chosen)


def row(step: str, started: float | None, token: float | None, ended: float | None) -> Any:
    """Times in seconds after the request came; the token's after the start."""

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else BEGAN + timedelta(seconds=seconds)

    times = {"started_at": at(started), "finished_at": at(ended)}
    return {"step": step, "first_token_seconds": token, **times}


SECTIONS = plan(AggregatorName.SECTIONS, ("one", A), ("two", A))
MERGED = plan(AggregatorName.SYNTHESIS, ("one", A), ("two", A), ("all", S))
ENSEMBLE = (("one", C), ("two", C), ("judge", J))
CREW = (("notes", P), ("draft", C), ("review", J))


@pytest.mark.parametrize(
    ("planned", "rows", "seconds"),
    [
        (SECTIONS, [row("one", 3, 1, 9), row("two", 1, 1, 5)], 4),
        (SECTIONS, [row("one", 3, None, 9), row("two", 1, 1, 5)], 2),
        (SECTIONS, [row("one", 3, None, None), row("two", 1, 1, 5)], None),
        (SECTIONS, [row("two", 1, 1, 5)], None),
        (MERGED, [row("one", 1, 1, 5), row("two", 1, 1, 5), row("all", 6, 1, 9)], 7),
        (MERGED, [row("one", 1, 1, 5), row("two", 1, 1, 5), row("all", None, None, None)], None),
        (
            plan(AggregatorName.CHOSEN, *ENSEMBLE, chosen="one"),
            [row("one", 1, 1, 5), row("two", 1, 1, 6), row("judge", 7, 1, 9)],
            9,
        ),
        (
            plan(AggregatorName.CHOSEN, *ENSEMBLE),
            [row("one", 1, 1, 5), row("two", 1, 1, 6), row("judge", 7, None, None)],
            None,
        ),
        (
            plan(AggregatorName.CHOSEN, *CREW, ("revision", C), chosen="revision"),
            [
                row("notes", 1, 1, 2),
                row("draft", 2, 1, 5),
                row("review", 5, 1, 8),
                row("revision", 8, 2, 12),
            ],
            10,
        ),
        (plan(AggregatorName.SINGLE, ("answer", A)), [], None),
    ],
    ids=[
        "the first section",
        "a section without words",
        "the first section is not there yet",
        "the plan is ahead of the rows",
        "merged",
        "not merged yet",
        "chosen",
        "not chosen yet",
        "revised",
        "not begun",
    ],
)
def test_the_first_text_is_of_the_answer(
    planned: Plan, rows: list[Any], seconds: float | None
) -> None:
    assert first_text_seconds(BEGAN, planned, rows) == seconds
