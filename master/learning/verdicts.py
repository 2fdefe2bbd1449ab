"""From what was said of an answer to what is stored of it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from db.judgements import NewJudgement
from db.models import JudgementKind, JudgementSource
from master.planning.plan import Judgement, Plan, Step, StepKind

_MOST = 100
"""What the scores of judges go up to."""
_MOST_STARS = 10
_JUDGED_KINDS = frozenset({StepKind.ANSWER, StepKind.CANDIDATE, StepKind.SYNTHESIS})


def judgements_of(plan: Plan, subtasks: Mapping[str, UUID]) -> list[NewJudgement]:
    """What the steps of a plan said of each other. `subtasks` are its subtasks by step.

    A judge that said nothing usable judged nothing; the plan has its problem.
    """
    found = {
        (made.kind, made.rater, made.subject): made
        for judgement in plan.judgements
        if not judgement.problem
        for made in _of_step(judgement, plan, subtasks)
    }
    return list(found.values())


def judgements_of_stored(
    plan: Mapping[str, Any], subtasks: Mapping[str, UUID]
) -> list[NewJudgement]:
    """The same of a plan as it is stored; nothing if it cannot be read."""
    try:
        return judgements_of(Plan.model_validate(plan), subtasks)
    except ValidationError:
        return []


def _of_step(
    judgement: Judgement, plan: Plan, subtasks: Mapping[str, UUID]
) -> Iterator[NewJudgement]:
    rating: dict[str, Any] = {}
    if judgement.scores:
        rating["scores"] = dict(judgement.scores)
    if judgement.passed is not None:
        rating["passed"] = judgement.passed
    for subject, score in _scores(judgement, plan).items():
        yield NewJudgement(
            JudgementKind(judgement.kind.value),
            f"step:{judgement.step}",
            JudgementSource.PLAN,
            subject=subject,
            subtask=subtasks.get(subject),
            score=score,
            rating=rating,
            reason=judgement.reason or None,
        )


def _scores(judgement: Judgement, plan: Plan) -> dict[str, float]:
    """By the step that was judged, 0 to 1."""
    if judgement.scores:
        scores = judgement.scores.items()
        return {step: min(max(score / _MOST, 0.0), 1.0) for step, score in scores}
    if judgement.passed is None:
        return {}
    return {_judged(judgement.step, plan.steps): float(judgement.passed)}


def _judged(judge: str, steps: tuple[Step, ...]) -> str:
    """The one answer that a judge was given; empty if it was given several, or is unknown."""
    given = {key for step in steps if step.key == judge for key in step.depends_on}
    answers = [step.key for step in steps if step.key in given and step.kind in _JUDGED_KINDS]
    return answers[0] if len(answers) == 1 else ""


def person(end_user: str | None) -> str:
    """The rater that a person is; who was not named is one of them."""
    return f"user:{end_user or ''}"


def score_of(thumb: int | None, stars: int | None) -> float | None:
    """0 to 1, of a thumb (-1 or 1) or of stars (1 to 10), which say more; None without both."""
    if stars is not None:
        return (stars - 1) / (_MOST_STARS - 1)
    return None if thumb is None else (thumb + 1) / 2
