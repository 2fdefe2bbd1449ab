"""A request as its stream sees it: the parts as they grow, and how much was shown."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from master.aggregation.cursor import Cursor, PartText, advance
from master.aggregation.layout import layout
from master.ending import Ending
from master.planning.growth import GROWING_KINDS
from master.planning.plan import AggregatorName, Plan, StepKind
from master.reassembly import PartStream, Verdict
from queue_schemas.messages import Channel, Completed, Started, TokenChunk
from queue_schemas.states import SUBTASK_TERMINAL, RequestState, SubtaskState

log = structlog.get_logger(__name__)

_AT_ONCE = 16_384
"""Characters in one item: so much of the answer is in the hands of a client's connection."""
_GROWN_SECONDS = 0.05
"""Between two looks at the parts: each of many may have its own chunk every few milliseconds."""

CONTRADICTED = Ending(
    RequestState.FAILED,
    error={
        "code": "diverged",
        "message": "it was answered anew, and otherwise than what was shown; "
        "GET /v1/requests/{id} has the whole answer",
    },
)
"""For who reads along; the request itself has its answer. Better than an end that looks whole."""


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


@dataclass(frozen=True)
class Grown:
    """Parts may have changed that are not shown yet; for who asked to be told of them."""


Item = Text | Reasoning | Status | Idle | Interrupted | Grown | Ending


class Live:
    """One open request on a replica that streams it, to one client or to several.

    The answer grows as one text, piece by piece; a follower is a place in it.
    """

    def __init__(
        self,
        request: UUID,
        plan: Plan,
        subtasks: Mapping[UUID, str],
        *,
        background: bool = False,
    ) -> None:
        self.request = request
        self.background = background
        """It goes on when nobody follows it."""
        self.followers = 1
        self.quiet = False
        """Nothing has happened since somebody set this."""
        self.ending: Ending | None = None
        self._interrupted = False
        self._news = asyncio.Event()
        self._cursor = Cursor()
        self._pieces: list[str] = []
        self._whole = False
        """The pieces have all of the answer."""
        self._contradicted = False
        """The text of record does not begin with what was shown."""
        self._statuses: list[Status] = []
        self._absent: frozenset[str] = frozenset()
        """Models that were said to have no worker."""
        self._begun: set[str] = set()
        """Steps that a worker has, or had."""
        self.parts: dict[str, PartStream] = {}
        self.replan(plan, subtasks)

    def replan(self, plan: Plan, subtasks: Mapping[UUID, str]) -> None:
        """Take over a plan, at first or after its plan step was expanded."""
        self.plan = plan
        self.subtasks = dict(subtasks)
        self._segments = layout(plan)
        old = self.parts
        self.parts = {step.key: old.get(step.key, PartStream()) for step in plan.steps}
        added = [s.title for s in plan.steps if s.key not in old and s.kind in GROWING_KINDS]
        self._statuses += [Status(title) for title in dict.fromkeys(added) if title]
        answers = [step for step in plan.steps if step.kind is StepKind.ANSWER]
        if len(answers) > 1 and not old.keys() & {step.key for step in answers}:
            self._statuses.append(Status(f"Split into {len(answers)} parts"))

    def expect(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Of each part follow the execution that the database knows, or a later one."""
        for row in rows:
            delivery = -1 if row["delivery"] is None else row["delivery"] - 1
            self.parts[row["step"]].order = (row["attempt"], delivery)

    def take(self, chunk: TokenChunk) -> Verdict:
        """Fit a chunk in, and wake the followers when there is something new."""
        step = self.subtasks.get(chunk.subtask)
        if step is None:
            return Verdict.STALE
        part = self.parts[step]
        thinks = chunk.channel is Channel.REASONING
        verdict = part.think(chunk) if thinks else part.take(chunk)
        if verdict is Verdict.NEWS:
            self._wake()
        return verdict

    def switch(self, later: Started) -> str | None:
        """Follow a later execution of a part from now on; returns what was shown of the part.

        None: a later one still is followed, or it has ended.
        """
        step = self.subtasks.get(later.subtask)
        if step is None:
            return ""
        part = self.parts[step]
        if not part.follow(later.attempt, later.delivery, later.execution):
            return None
        return part.text[: part.shown]

    def finish_part(self, result: Completed) -> None:
        """A part's text of record is stored."""
        step = self.subtasks.get(result.subtask)
        if step is not None:
            self._finish(step, result.text, result.reasoning)

    def refresh(self, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take over what the database says, unless that is older than what is known."""
        if len(plan.steps) < len(self.plan.steps):
            return
        if len(plan.steps) != len(self.plan.steps) or plan.chosen != self.plan.chosen:
            self.replan(plan, {row["id"]: row["step"] for row in rows})
        for row in rows:
            part = self.parts[row["step"]]
            if part.done or row["state"] not in SUBTASK_TERMINAL:
                continue
            if row["state"] == SubtaskState.SUCCEEDED:
                self._finish(row["step"], row["text"] or "", row["reasoning"] or "")
            elif plan.aggregator is not AggregatorName.SYNTHESIS:
                # What was generated before it failed belongs to the answer, as in `ending.compose`.
                part.finish(row["text"] or "")
                part.missing = (row["error"] or {}).get("message") or f"it was {row['state']}"
        self._wake()

    def _finish(self, step: str, text: str, reasoning: str) -> None:
        part = self.parts[step]
        if part.done:
            return
        if not part.finish(text, reasoning):
            log.error("stream.diverged", request=str(self.request), step=step)
        answers = [s.key for s in self.plan.steps if s.kind is StepKind.ANSWER]
        if step in answers and len(answers) > 1:
            ready = sum(self.parts[key].done for key in answers)
            self._statuses.append(Status(f"Part {ready} of {len(answers)} finished"))
        self._wake()

    def note_begun(self, subtask: UUID) -> None:
        """A worker has it."""
        if step := self.subtasks.get(subtask):
            self._begun.add(step)

    def has_begun(self, step: str) -> bool:
        """Whether a worker has it, or had."""
        return step in self._begun

    def note_absent(self, absent: Mapping[str, str]) -> None:
        """Say it when what waits has to wait for a model's first worker, and when that is there.

        `absent` are all models without one, with the words for it.
        """
        waiting = frozenset(self._awaited()) & absent.keys()
        ready = self._absent - absent.keys()
        self._statuses += [Status(absent[model]) for model in sorted(waiting - self._absent)]
        self._statuses += [Status(f"{model} is ready") for model in sorted(ready)]
        if ready or not waiting <= self._absent:
            self._absent = (self._absent - ready) | waiting
            self._wake()

    def _awaited(self) -> Iterator[str]:
        """The models of steps that could begin and have not."""
        for step in self.plan.steps:
            part = self.parts[step.key]
            waits = not (part.done or part.text or part.reasoning or step.key in self._begun)
            if waits and all(self.parts[key].done for key in step.depends_on):
                yield step.model

    def end(self, ending: Ending) -> None:
        """The request has its terminal state."""
        if self.ending is None:
            self.ending = ending
            self._wake()

    def interrupt(self) -> None:
        """Let go of the client; the request is not ended by this."""
        self._interrupted = True
        self._wake()

    async def follow(
        self, idle_seconds: float, skip: int = 0, thought: int = 0, *, parts: bool = False
    ) -> AsyncGenerator[Item, None]:
        """Everything to show, as it comes; the last item is the Ending.

        `skip` characters of the answer and `thought` of the reasoning are left out: the client
        has them. With `parts` it is also told when these have grown.
        """
        pieces = statuses = 0
        while True:
            # Taken before the state is looked at: what happens from here on sets it.
            news, ending = self._news, self.ending
            for status in self._statuses[statuses:]:
                statuses += 1
                yield status
            # While a client takes a piece, thoughts and text may come: all thoughts go first.
            for piece in self._thoughts(thought):
                thought += len(piece)
                yield Reasoning(piece)
            self._publish(ending)
            text = "".join(self._pieces[pieces:])
            pieces = len(self._pieces)
            if skip:
                text, skip = text[skip:], max(0, skip - len(text))
            for piece in _in_pieces(text):
                yield Text(piece)
            if parts:
                yield Grown()
                await asyncio.sleep(_GROWN_SECONDS)
            if ending is not None:
                yield CONTRADICTED if self._contradicted else ending
                return
            if self._interrupted:
                yield Interrupted()
                return
            try:
                async with asyncio.timeout(idle_seconds):
                    await news.wait()
            except TimeoutError:
                yield Idle()

    async def ended(self) -> Ending | None:
        """Wait for the terminal state; None when this replica lets go before."""
        while self.ending is None and not self._interrupted:
            await self._news.wait()
        return self.ending

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered, as far as it is known here."""
        if len(self._segments) != 1:
            return ""
        return self.parts[self._segments[0].step_key].reasoning

    def _thoughts(self, after: int) -> Iterator[str]:
        while reasoning := self.reasoning[after:]:
            after += len(reasoning)
            yield from _in_pieces(reasoning)

    def beyond(self, place: int) -> int:
        """About how many characters there are for a client that has so many."""
        texts = (self.parts[segment.step_key].text for segment in self._segments)
        return len(self.reasoning) + sum(map(len, texts)) - place

    @property
    def known(self) -> tuple[int, int]:
        """How many parts there are, and how many have ended."""
        return len(self.subtasks), sum(part.done for part in self.parts.values())

    def _wake(self) -> None:
        self.quiet = False
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _publish(self, ending: Ending | None) -> None:
        """Add to the pieces what may be shown now. Text counts as shown from then on."""
        if self._whole:
            return
        texts = {
            segment.step_key: _as_part_text(self.parts[segment.step_key])
            for segment in self._segments[self._cursor.segment :]
        }
        self._cursor, text = advance(self._cursor, self._segments, texts)
        if text:
            self._pieces.append(text)
            for segment in self._segments[: self._cursor.segment + 1]:
                part = self.parts[segment.step_key]
                part.shown = len(part.text)
        if ending is not None:
            self._whole = True
            if rest := self._rest(ending):
                self._pieces.append(rest)

    def _rest(self, ending: Ending) -> str:
        """What the text of record has beyond what was shown."""
        if ending.answer is None:
            return ""
        shown = "".join(self._pieces)
        if not ending.answer.startswith(shown):
            log.error("stream.diverged", request=str(self.request), shown=len(shown))
            self._contradicted = True
            return ""
        return ending.answer[len(shown) :]


def _as_part_text(part: PartStream) -> PartText:
    done = part.done and part.missing is None
    return PartText(part.text, done=done, missing=part.missing)


def _in_pieces(text: str) -> Iterator[str]:
    return (text[start : start + _AT_ONCE] for start in range(0, len(text), _AT_ONCE))
