"""A request as its stream sees it: the parts as they grow, and how much was shown."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from master.aggregation.cursor import Cursor, PartText, advance
from master.aggregation.layout import layout
from master.ending import Ending
from master.planning.plan import AggregatorName, Plan, StepKind
from master.reassembly import PartStream, Verdict
from queue_schemas.messages import Channel, Completed, TokenChunk
from queue_schemas.states import SUBTASK_TERMINAL, SubtaskState

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Text:
    """Text of the answer that may be shown now."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """What the model thinks before it answers; only of requests with one part."""

    text: str


@dataclass(frozen=True)
class Status:
    """How the request gets on, for front ends that show it."""

    description: str
    done: bool = False


@dataclass(frozen=True)
class Idle:
    """Nothing happened for a while; the connection wants a sign of life."""


@dataclass(frozen=True)
class Interrupted:
    """This replica shuts down; the request itself goes on."""


Item = Text | Reasoning | Status | Idle | Interrupted | Ending


class Live:
    """One open request on the replica that streams it."""

    def __init__(self, request: UUID, plan: Plan, subtasks: Mapping[UUID, str]) -> None:
        self.request = request
        self.ending: Ending | None = None
        self._interrupted = False
        self._changed = asyncio.Event()
        self._cursor = Cursor()
        self._emitted: list[str] = []
        self._reasoned = 0
        self._statuses: list[Status] = []
        self.parts: dict[str, PartStream] = {}
        self.replan(plan, subtasks)

    def replan(self, plan: Plan, subtasks: Mapping[UUID, str]) -> None:
        """Take over a plan, at first or after its plan step was expanded."""
        self.plan = plan
        self.subtasks = dict(subtasks)
        self._segments = layout(plan)
        old = self.parts
        self.parts = {step.key: old.get(step.key, PartStream()) for step in plan.steps}
        answers = [step for step in plan.steps if step.kind is StepKind.ANSWER]
        if len(answers) > 1:
            self._statuses.append(Status(f"Split into {len(answers)} parts"))

    def take(self, chunk: TokenChunk) -> Verdict:
        """Fit a chunk in, and wake the reader when there is something new."""
        step = self.subtasks.get(chunk.subtask)
        if step is None:
            return Verdict.STALE
        part = self.parts[step]
        if chunk.channel is Channel.REASONING:
            if part.follow(chunk.attempt, chunk.delivery, chunk.execution):
                # A second execution thinks again from the start; what was shown is not repeated.
                part.reasoning += chunk.text[max(0, len(part.reasoning) - chunk.offset) :]
                self._changed.set()
            return Verdict.NOTHING_NEW
        verdict = part.take(chunk)
        if verdict is Verdict.NEWS:
            self._changed.set()
        return verdict

    def finish_part(self, result: Completed) -> None:
        """A part's text of record is stored."""
        step = self.subtasks.get(result.subtask)
        if step is not None:
            self._finish(step, result.text)

    def refresh(self, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take over what the database says."""
        if len(plan.steps) != len(self.plan.steps):
            self.replan(plan, {row["id"]: row["step"] for row in rows})
        for row in rows:
            part = self.parts[row["step"]]
            if part.done or row["state"] not in SUBTASK_TERMINAL:
                continue
            if row["state"] == SubtaskState.SUCCEEDED:
                self._finish(row["step"], row["text"] or "")
            elif plan.aggregator is not AggregatorName.SYNTHESIS:
                # What was generated before it failed belongs to the answer, as in `ending.compose`.
                part.finish(row["text"] or "")
                part.missing = (row["error"] or {}).get("message") or f"it was {row['state']}"
        self._changed.set()

    def _finish(self, step: str, text: str) -> None:
        part = self.parts[step]
        if part.done:
            return
        if not part.finish(text):
            log.error("stream.diverged", request=str(self.request), step=step)
        answers = [s.key for s in self.plan.steps if s.kind is StepKind.ANSWER]
        if step in answers and len(answers) > 1:
            ready = sum(self.parts[key].done for key in answers)
            self._statuses.append(Status(f"Part {ready} of {len(answers)} finished"))
        self._changed.set()

    def end(self, ending: Ending) -> None:
        """The request has its terminal state."""
        if self.ending is None:
            self.ending = ending
            self._changed.set()

    def interrupt(self) -> None:
        """Let go of the client; the request is not ended by this."""
        self._interrupted = True
        self._changed.set()

    async def follow(self, idle_seconds: float) -> AsyncGenerator[Item, None]:
        """Everything to show, as it comes; the last item is the Ending."""
        while True:
            self._changed.clear()
            ending = self.ending
            statuses, self._statuses = self._statuses, []
            for status in statuses:
                yield status
            if reasoning := self._new_reasoning():
                yield Reasoning(reasoning)
            if text := self._new_text():
                yield Text(text)
            if ending is not None:
                if rest := self._rest(ending):
                    yield Text(rest)
                yield ending
                return
            if self._interrupted:
                yield Interrupted()
                return
            try:
                async with asyncio.timeout(idle_seconds):
                    await self._changed.wait()
            except TimeoutError:
                yield Idle()

    async def ended(self) -> Ending | None:
        """Wait for the terminal state; None when this replica lets go before."""
        while self.ending is None and not self._interrupted:
            self._changed.clear()
            await self._changed.wait()
        return self.ending

    def _new_reasoning(self) -> str:
        if len(self._segments) != 1:
            return ""
        reasoning = self.parts[self._segments[0].step_key].reasoning
        fresh = reasoning[self._reasoned :]
        self._reasoned = len(reasoning)
        return fresh

    def _new_text(self) -> str:
        texts = {
            segment.step_key: _as_part_text(self.parts[segment.step_key])
            for segment in self._segments[self._cursor.segment :]
        }
        self._cursor, text = advance(self._cursor, self._segments, texts)
        if text:
            self._emitted.append(text)
            for segment in self._segments[: self._cursor.segment + 1]:
                part = self.parts[segment.step_key]
                part.shown = len(part.text)
        return text

    def _rest(self, ending: Ending) -> str:
        """What the text of record has beyond what was shown."""
        if ending.answer is None:
            return ""
        shown = "".join(self._emitted)
        if not ending.answer.startswith(shown):
            log.error("stream.diverged", request=str(self.request), shown=len(shown))
            return ""
        return ending.answer[len(shown) :]


def _as_part_text(part: PartStream) -> PartText:
    done = part.done and part.missing is None
    return PartText(part.text, done=done, missing=part.missing)
