"""How a request ended: what is stored, and what its stream closes with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from db import ledger, requests, subtasks
from master.aggregation.cursor import PartText, final_text
from master.aggregation.layout import Segment, fallback_layout, layout
from master.planning.plan import AggregatorName, Plan, read_plan
from queue_schemas.messages import Completed
from queue_schemas.states import REQUEST_TERMINAL, RequestState, SubtaskState


@dataclass(frozen=True)
class Ending:
    """The terminal state of a request, with all that its client is told."""

    state: RequestState
    answer: str | None = None
    finish_reason: str | None = None
    error: Mapping[str, JsonValue] | None = None
    """`code` and `message`; also set on a completed request of which parts are missing."""
    reasoning: str = ""
    tool_calls: Sequence[dict[str, JsonValue]] = ()
    logprobs: JsonValue = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Of the executions that the answer is made of; the bill of all is the request's record."""


def of_single(result: Completed) -> Ending:
    """The ending of a request whose only subtask succeeded."""
    return Ending(
        RequestState.COMPLETED,
        answer=result.text,
        finish_reason=result.finish_reason,
        reasoning=result.reasoning,
        tool_calls=result.tool_calls,
        logprobs=result.logprobs,
        prompt_tokens=result.usage.prompt_tokens,
        completion_tokens=result.usage.completion_tokens,
    )


def compose(plan: Plan, rows: Sequence[Mapping[str, Any]], tokens: tuple[int, int]) -> Ending:
    """The ending of a request all of whose subtasks ended. `rows` are its subtask rows."""
    by_step = {row["step"]: row for row in rows}
    segments = shown_segments(plan, by_step)
    shown = [by_step[segment.step_key] for segment in segments if segment.step_key in by_step]
    succeeded = [row for row in shown if row["state"] == SubtaskState.SUCCEEDED]
    if not succeeded:
        return Ending(
            RequestState.FAILED,
            error=_first_error(rows),
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
        )
    only = succeeded[0] if len(segments) == 1 else None
    return Ending(
        RequestState.COMPLETED,
        answer=final_text(segments, {row["step"]: part_text(row) for row in shown}),
        finish_reason=_finish_reason(succeeded),
        error=_missing(segments, by_step),
        reasoning=(only["reasoning"] or "") if only else "",
        tool_calls=(only["tool_calls"] or ()) if only else (),
        logprobs=only["logprobs"] if only else None,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
    )


def shown_segments(plan: Plan, by_step: Mapping[str, Mapping[str, Any]]) -> tuple[Segment, ...]:
    """The segments that make the answer, given how the steps ended.

    A synthesis that failed before it said anything gives way to the parts themselves.
    """
    segments = layout(plan)
    if plan.aggregator is AggregatorName.SYNTHESIS and segments:
        last = by_step.get(segments[0].step_key)
        if last and last["state"] != SubtaskState.SUCCEEDED and not last["text"]:
            return fallback_layout(plan)
    return segments


def part_text(row: Mapping[str, Any]) -> PartText:
    """A subtask row as aggregation wants it."""
    state = SubtaskState(row["state"])
    if state is SubtaskState.SUCCEEDED:
        return PartText(row["text"] or "", done=True)
    reason = (row["error"] or {}).get("message") or f"it was {state}"
    return PartText(row["text"] or "", missing=reason)


def _finish_reason(rows: Sequence[Mapping[str, Any]]) -> str:
    reasons = [row["finish_reason"] or "stop" for row in rows]
    if len(reasons) == 1:
        return str(reasons[0])
    return "length" if "length" in reasons else "stop"


def _first_error(rows: Sequence[Mapping[str, Any]]) -> dict[str, JsonValue]:
    for row in rows:
        if row["error"]:
            return {"code": row["error"]["code"], "message": row["error"]["message"]}
    return {"code": "no_answer", "message": "no part of the request could be answered"}


def _missing(
    segments: Sequence[Segment], by_step: Mapping[str, Mapping[str, Any]]
) -> dict[str, JsonValue] | None:
    labels: list[JsonValue] = [
        segment.label
        for segment in segments
        if by_step.get(segment.step_key, {}).get("state") != SubtaskState.SUCCEEDED
    ]
    if not labels:
        return None
    return {"code": "partial", "message": "some parts are missing", "missing": labels}


async def load(connection: AsyncConnection, request: UUID) -> Ending | None:
    """How a stored request ended; None while it has not. Raises PlanUnreadable."""
    stored = (await requests.load(connection, [request])).get(request)
    if stored is None or stored.state not in REQUEST_TERMINAL:
        return None
    tokens = await ledger.tokens_of_answers(connection, request)
    rows = await subtasks.details(connection, request)
    if stored.state is RequestState.COMPLETED:
        return compose(read_plan(stored.plan), rows, tokens)
    return Ending(
        stored.state, error=stored.error, prompt_tokens=tokens[0], completion_tokens=tokens[1]
    )
