"""Plans without words, and what is left of what was recalled."""

from uuid import UUID

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


def test_only_what_was_recalled_from_the_conversation_goes() -> None:
    gone, stays = UUID(int=1), UUID(int=2)
    recalled = [{"conversation": str(each), "text": "x"} for each in (gone, stays)]
    left = without({"note": "x", "recalled": recalled, "summary": "s"}, gone)
    assert left == {"note": "", "recalled": recalled[1:], "summary": "s"}
