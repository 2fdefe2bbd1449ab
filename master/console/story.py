"""What the page of a request shows beside its record: pictures, questions and texts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from master.aggregation.layout import layout
from master.api.requests import Look
from master.console import dag, timeline
from master.planning.chat import text_of
from master.planning.plan import AggregatorName, Plan, Step, read_plan
from queue_schemas.states import REQUEST_TERMINAL, SubtaskState

_MUCH = 100_000
"""Characters of all parts together; beyond it each is cut, and has its whole text elsewhere."""
_SHORT = 1_500
_SHORT_WHILE_OPEN = 600
"""While it runs all of it is sent again whenever something changes."""
_FEW = 12
_ODD = frozenset({SubtaskState.FAILED, SubtaskState.DEAD, SubtaskState.SKIPPED})


@dataclass(frozen=True)
class Said:
    """A message of the question."""

    role: str
    text: str


@dataclass(frozen=True)
class Told:
    """One step, with all that is known of its subtask."""

    key: str
    title: str
    kind: str
    after: Sequence[str]
    """Titles of the steps that it builds on."""
    subtask: Mapping[str, Any] | None
    """Its entry in the record; none while the plan is ahead of the rows."""
    state: str
    text: str
    cut: bool
    """There is more text than is shown here."""
    problem: str | None
    tries: Sequence[Mapping[str, Any]]
    """Its executions, where there is more to say of them than that the only one succeeded."""


@dataclass(frozen=True)
class Story:
    """All of it."""

    open: bool
    question: str
    messages: Sequence[Said]
    deleted: bool
    """Its owner deleted it: what was asked and answered is not shown."""
    told: Sequence[Told]
    drawing: dag.Drawing
    timeline: timeline.Timeline
    seconds: float
    """From its beginning to its end, or until now."""
    first_text_seconds: float | None
    answer: str
    """The whole one; while it is written, what there is of it, if it has only one part."""


def tell(seen: Look, record: Mapping[str, Any], growing: Mapping[str, str]) -> Story:
    """`growing`: texts by step, of those that this replica streams just now."""
    stored = seen.stored
    plan = read_plan(stored.plan)
    is_open, deleted = stored.state not in REQUEST_TERMINAL, bool(stored.question.get("hidden"))
    # Titles are made of the question's words.
    titles = {step.key: step.key if deleted else step.title or step.key for step in plan.steps}
    messages = () if deleted else _messages(stored.question)
    rows = {row["step"]: row for row in seen.rows}
    subtasks = {entry["step"]: entry for entry in record["subtasks"]}
    texts = {} if deleted else _texts(rows, growing)
    most = _most(texts, is_open=is_open)
    told = [
        _told(step, titles, subtasks.get(step.key), texts.get(step.key, ""), most)
        for step in plan.steps
    ]
    return Story(
        is_open,
        next((said.text for said in reversed(messages) if said.role == "user"), ""),
        messages,
        deleted,
        told,
        dag.draw(
            [_part(step, each) for step, each in zip(plan.steps, told, strict=True)],
            [segment.step_key for segment in layout(plan)],
        ),
        timeline.draw(stored.created_at, stored.read_at, seen.rows, seen.executions, titles),
        ((stored.finished_at or stored.read_at) - stored.created_at).total_seconds(),
        first_text_seconds(stored.created_at, plan, seen.rows),
        "" if deleted else stored.answer or (told[0].text if is_open and len(told) == 1 else ""),
    )


def _messages(question: Mapping[str, Any]) -> list[Said]:
    return [Said(str(each.get("role")), text_of(each)) for each in question.get("messages", ())]


def _texts(rows: Mapping[str, Mapping[str, Any]], growing: Mapping[str, str]) -> dict[str, str]:
    stored = {key: row["text"] or row["shown"] or "" for key, row in rows.items()}
    return {key: max(text, growing.get(key, ""), key=len) for key, text in stored.items()}


def _most(texts: Mapping[str, str], *, is_open: bool) -> int:
    """Characters that each part may have."""
    if is_open and len(texts) > _FEW:
        return _SHORT_WHILE_OPEN
    return _SHORT if sum(map(len, texts.values())) > _MUCH else _MUCH


def _told(
    step: Step,
    titles: Mapping[str, str],
    subtask: Mapping[str, Any] | None,
    text: str,
    most: int,
) -> Told:
    tries: Sequence[Mapping[str, Any]] = subtask["attempts"] if subtask else []
    plain = len(tries) == 1 and tries[0]["outcome"] == "completed" and not tries[0]["seams"]
    return Told(
        step.key,
        titles[step.key],
        step.kind.value,
        [titles[key] for key in step.depends_on],
        subtask,
        subtask["state"] if subtask else SubtaskState.BLOCKED.value,
        text[:most],
        len(text) > most,
        _problem(subtask) if subtask else None,
        () if plain else tries,
    )


def _problem(subtask: Mapping[str, Any]) -> str | None:
    error = subtask["error"]
    if not error:
        return None
    words = f"{error.get('message') or 'it failed'} ({error.get('code') or 'unknown'})"
    return words if subtask["state"] in _ODD else f"Before: {words}"


def _part(step: Step, told: Told) -> dag.Part:
    return dag.Part(step.key, told.title, step.model, told.state, step.depends_on)


def first_text_seconds(
    began: datetime, plan: Plan, rows: Sequence[Mapping[str, Any]]
) -> float | None:
    """Until the first word of the answer, as a client sees it; None before it.

    A part that is chosen is shown when all has ended that the choice is made of.
    """
    shown = _first_shown(plan, {row["step"]: row for row in rows})
    if shown is None:
        return None
    times: list[datetime] = [_first_token(shown)]
    if plan.aggregator is AggregatorName.CHOSEN:
        times += [row["finished_at"] for row in rows if row is not shown and row["finished_at"]]
    return (max(times) - began).total_seconds()


def _first_shown(plan: Plan, rows: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first part of the answer that says anything, once all before it said nothing."""
    for part in layout(plan):
        row = rows.get(part.step_key)
        if row is None:
            return None
        if row["started_at"] and row["first_token_seconds"] is not None:
            return row
        if not row["finished_at"]:
            return None
    return None


def _first_token(row: Mapping[str, Any]) -> datetime:
    at: datetime = row["started_at"] + timedelta(seconds=row["first_token_seconds"])
    return at
