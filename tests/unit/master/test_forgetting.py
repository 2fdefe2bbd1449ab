"""Plans without words, and what is left of what was recalled."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from db.forgotten import Mark
from master.forgetting import without, without_prompts, wordless
from master.planning.plan import Plan

PLAN = {
    "strategy": "ensemble",
    "aggregator": "chosen",
    "chosen": "candidate-1",
    "reason": "The client asked for it.",
    "lookup": "secret",
    "sources": [],
    "judgements": [
        {"step": "judge-1", "kind": "choice", "scores": {"candidate-1": 90}, "reason": "secret"}
    ],
    "steps": [
        {
            "key": "candidate-1",
            "kind": "candidate",
            "title": "secret",
            "model": "mill",
            "messages": [{"role": "user", "content": "secret"}],
            "parameters": {"stop": "secret"},
            "lookup": "secret",
        },
        {
            "key": "judge-1",
            "kind": "judge",
            "model": "mill",
            "messages": [],
            "depends_on": ["candidate-1"],
            "labels": ["secret"],
        },
    ],
}


def test_a_plan_without_words_is_still_a_plan() -> None:
    left = wordless(PLAN)
    assert "secret" not in str(left)
    plan = Plan.model_validate(left)
    assert [(step.key, step.kind, step.model) for step in plan.steps] == [
        ("candidate-1", "candidate", "mill"),
        ("judge-1", "judge", "mill"),
    ]
    assert (plan.chosen, plan.judgements[0].scores) == ("candidate-1", {"candidate-1": 90})


def test_a_plan_without_prompts_keeps_the_rest() -> None:
    left = without_prompts(PLAN)
    assert [step["messages"] for step in left["steps"]] == [[], []]
    assert left["lookup"] == "secret"
    Plan.model_validate(left)


GONE, STAYS = UUID(int=1), UUID(int=2)
ASKED_AT = datetime(2026, 11, 21, tzinfo=UTC)


def test_only_what_was_recalled_of_what_was_deleted_goes() -> None:
    recalled = [{"request": str(each), "text": "x"} for each in (GONE, STAYS)]
    given = {"note": "x", "recalled": recalled, "summary": "s", "messages": ["x"]}
    left = without(given, Mark(GONE, GONE, [GONE], None))
    assert left == {
        "note": "",
        "recalled": recalled[1:],
        "exchanges": [],
        "summary": "s",
        "messages": ["x"],
    }


@pytest.mark.parametrize(("hours", "summary"), [(0, ""), (1, ""), (-1, "s")])
def test_a_window_with_a_deleted_response_goes_and_a_summary_that_covers_it(
    hours: int, summary: str
) -> None:
    until = (ASKED_AT + timedelta(hours=hours)).isoformat()
    given = {
        "messages": ["x", "y"],
        "exchanges": [str(GONE), str(STAYS)],
        "summary": "s",
        "summarised_until": until,
    }
    left = without(given, Mark(GONE, GONE, [GONE], ASKED_AT))
    assert (left["messages"], left["exchanges"]) == ([], [str(STAYS)])
    assert left["summary"] == summary
