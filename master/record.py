"""What `/v1/requests/{id}` tells: state, plan, subtasks, times, tokens and cost. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from db.judgements import StoredJudgement
from db.requests import StoredRequest
from master.aggregation.citations import citations
from master.planning.chat import estimate_chat_tokens
from master.planning.gate import measured_extra_tokens, measured_speedup
from master.planning.growth import GROWING_KINDS
from master.planning.plan import Plan, StepKind, read_plan
from master.planning.remembered import Remembered, shown_id
from queue_schemas.registry import Registry

_MILLION = 1_000_000
_TIMES = ("ready_at", "queued_at", "started_at", "finished_at")


def record(
    stored: StoredRequest,
    rows: Sequence[Mapping[str, Any]],
    ledger: Sequence[Mapping[str, Any]],
    registry: Registry,
    judgements: Sequence[StoredJudgement],
) -> dict[str, Any]:
    """The record of a request: of its row, its subtask rows, its executions, its judgements.

    Raises PlanUnreadable.
    """
    plan = read_plan(stored.plan)
    titles = {step.key: step.title for step in plan.steps}
    subtasks = [_subtask(row, titles, ledger, registry) for row in rows]
    return {
        "id": str(stored.id),
        "object": "request",
        "state": stored.state.value,
        "model": stored.model,
        "strategy": plan.strategy,
        "reason": plan.reason,
        "created_at": _iso(stored.created_at),
        "started_at": _iso(stored.started_at),
        "finished_at": _iso(stored.finished_at),
        "deadline_at": _iso(stored.deadline_at),
        "conversation": shown_id(stored.conversation) if stored.conversation else None,
        "remembered": _remembered(stored),
        "plan": _plan(plan),
        "subtasks": subtasks,
        "sources": [source.model_dump(mode="json") for source in plan.given],
        "citations": _citations(plan, rows),
        "retrieved": plan.retrieved.model_dump(mode="json") if plan.retrieved else None,
        "usage": _usage(subtasks, registry.currency),
        "measured": _measured(stored, plan, rows, subtasks),
        "finish_reason": stored.finish_reason,
        "error": stored.error,
        "judgements": [judgement_record(each) for each in judgements],
        "answer": stored.answer,
    }


def _remembered(stored: StoredRequest) -> dict[str, Any] | None:
    """What was put before the client's own messages."""
    found = stored.question.get("remembered")
    if not found:
        return None
    given = Remembered.model_validate(found).model_dump(mode="json", exclude={"conversation"})
    recalled = [
        {**one, "conversation": shown_id(UUID(one["conversation"]))} for one in given["recalled"]
    ]
    return {**given, "recalled": recalled}


def judgement_record(stored: StoredJudgement) -> dict[str, Any]:
    """What somebody said of an answer."""
    return {
        "id": str(stored.id),
        "object": "judgement",
        "request": str(stored.request),
        "subtask": str(stored.subtask) if stored.subtask else None,
        "kind": stored.kind.value,
        "rater": stored.rater,
        "subject": stored.subject,
        "score": stored.score,
        "rating": dict(stored.rating),
        "reason": stored.reason,
        "comment": stored.comment,
        "correction": stored.correction,
        "source": stored.source.value,
        "created_at": _iso(stored.created_at),
        "updated_at": _iso(stored.updated_at),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    steps = [
        step.model_dump(
            mode="json", include={"key", "kind", "title", "model", "depends_on", "lookup"}
        )
        for step in plan.steps
    ]
    gate = plan.gate.model_dump(mode="json") if plan.gate else None
    return {
        "strategy": plan.strategy,
        "aggregator": plan.aggregator.value,
        "reason": plan.reason,
        "gate": gate,
        "steps": steps,
        "chosen": plan.chosen or None,
        "judgements": [judgement.model_dump(mode="json") for judgement in plan.judgements],
        "rules": [rule.model_dump(mode="json") for rule in plan.rules],
    }


def _subtask(
    row: Mapping[str, Any],
    titles: Mapping[str, str],
    ledger: Sequence[Mapping[str, Any]],
    registry: Registry,
) -> dict[str, Any]:
    spent = [line for line in ledger if line["subtask_id"] == row["id"]]
    prompt = sum(line["prompt_tokens"] for line in spent)
    completion = sum(line["completion_tokens"] for line in spent)
    return {
        "id": str(row["id"]),
        "step": row["step"],
        "kind": row["kind"],
        "title": titles.get(row["step"], ""),
        "state": row["state"],
        "model": row["model"],
        "worker": row["worker"],
        "attempt": row["attempt"],
        **{name: _iso(row[name]) for name in _TIMES},
        "queue_seconds": _between(row["ready_at"], row["started_at"]),
        "first_token_seconds": row["first_token_seconds"],
        "total_seconds": _between(row["ready_at"], row["finished_at"]),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "engine_seconds": sum(line["engine_seconds"] for line in spent),
        "cost": sum(_cost(line, registry) for line in spent),
        "text": row["text"] if row["kind"] in GROWING_KINDS else None,
        "error": row["error"],
        "attempts": [_attempt(line) for line in spent],
    }


def _citations(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Which sentence is from which pieces of documents, and which model said so."""
    return [
        {
            "sentence": cited.sentence,
            "subtask": str(row["id"]),
            "step": row["step"],
            "model": row["model"],
            "sources": [
                {
                    "number": source.number,
                    "chunk": source.chunk,
                    "document": str(source.document),
                    "name": source.label,
                }
                for source in plan.sources
                if source.number in cited.numbers
            ],
            "unknown": list(cited.unknown),
        }
        for row in rows
        if plan.sources and row["text"]
        for cited in citations(row["text"], plan.sources)
    ]


def _attempt(line: Mapping[str, Any]) -> dict[str, Any]:
    names = ("attempt", "model", "worker", "outcome", "applied", "error", "prompt_tokens")
    more = ("completion_tokens", "estimated", "engine_seconds", "load_seconds")
    return {name: line[name] for name in (*names, *more)} | {
        "first_token_seconds": line["first_token_seconds"],
        "seams": line["seams"] or [],
        "finished_at": _iso(line["finished_at"]),
    }


def _usage(subtasks: Sequence[Mapping[str, Any]], currency: str) -> dict[str, Any]:
    prompt = sum(subtask["prompt_tokens"] for subtask in subtasks)
    completion = sum(subtask["completion_tokens"] for subtask in subtasks)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "engine_seconds": sum(subtask["engine_seconds"] for subtask in subtasks),
        "cost": sum(subtask["cost"] for subtask in subtasks),
        "currency": currency,
    }


def _measured(
    stored: StoredRequest,
    plan: Plan,
    rows: Sequence[Mapping[str, Any]],
    subtasks: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """How the split did: against doing the same parts one after the other."""
    spans = [
        (row["started_at"].timestamp(), row["finished_at"].timestamp())
        for row in rows
        if row["started_at"] and row["finished_at"] and row["kind"] == StepKind.ANSWER
    ]
    prompts = [subtask["prompt_tokens"] for subtask in subtasks]
    split = len(plan.steps) > 1
    whole = estimate_chat_tokens(stored.question["messages"])
    return {
        "speedup": measured_speedup(spans) if split else None,
        "extra_tokens": measured_extra_tokens(prompts, whole) if split else None,
        "wall_seconds": _between(stored.created_at, stored.finished_at),
    }


def _cost(line: Mapping[str, Any], registry: Registry) -> float:
    """Of one execution, at the price of the model that it ran on."""
    entry = registry.get(line["model"])
    if entry is None:
        return 0.0
    prompt, completion = line["prompt_tokens"], line["completion_tokens"]
    spent: float = prompt * entry.price.prompt + completion * entry.price.completion
    return spent / _MILLION


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None


def _between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds; none were between the end and a next try that was yet to come."""
    return max(0.0, (end - start).total_seconds()) if start and end else None
