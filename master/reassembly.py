"""Putting a part's text together from chunks that may be lost, repeated, late or regenerated. Pure.

Offsets make gaps visible. A newer execution regenerates the text from the start; as far as it
agrees with what the client has seen it is skipped, and where it does not, the part has diverged
and must be continued from the shown prefix, because shown text is never taken back.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from uuid import UUID

from queue_schemas.messages import TokenChunk


class Verdict(Enum):
    """What a chunk turned out to be."""

    NEWS = auto()
    """It added text."""
    NOTHING_NEW = auto()
    """All of it was known already."""
    STALE = auto()
    """From an execution that was superseded."""
    GAP = auto()
    """Text or thoughts before it are missing; ask for them from where ours end."""
    DIVERGED = auto()
    """It contradicts text that the client has seen."""


@dataclass
class PartStream:
    """The text of one step as far as this replica knows it."""

    text: str = ""
    shown: int = 0
    """How much of it the client has seen."""
    done: bool = False
    missing: str | None = None
    """Why there is no text, once that is final."""
    reasoning: str = ""
    """What the model thought before; as far as it is known, all of it counts as shown."""
    order: tuple[int, int] = field(default=(0, -1))
    """(attempt, delivery) of the execution that is followed; a higher one takes over."""
    execution: UUID | None = None

    def follow(self, attempt: int, delivery: int, execution: UUID) -> bool:
        """Whether this execution is the one to follow; a newer one takes over here."""
        if execution == self.execution:
            return True
        if self.done or (attempt, delivery) <= self.order:
            return False
        self.order = (attempt, delivery)
        self.execution = execution
        self.text = self.text[: self.shown]
        return True

    def take(self, chunk: TokenChunk) -> Verdict:
        """Fit a chunk of the content channel in."""
        if not self.follow(chunk.attempt, chunk.delivery, chunk.execution):
            return Verdict.STALE
        # Text that is shown ends the thoughts: what was lost of them could not be shown any more.
        if chunk.offset > len(self.text) or chunk.thought > len(self.reasoning):
            return Verdict.GAP
        known = self.text[chunk.offset : chunk.offset + len(chunk.text)]
        if not chunk.text.startswith(known):
            # What else it says would fit at its offset, but not to the text before it.
            self.execution = None
            return Verdict.DIVERGED
        fresh = chunk.text[len(known) :]
        self.text += fresh
        return Verdict.NEWS if fresh else Verdict.NOTHING_NEW

    def think(self, chunk: TokenChunk) -> Verdict:
        """Fit a chunk of the reasoning channel in.

        A second execution thinks again from the start: of its thoughts only those are taken that
        come after what was shown.
        """
        if not self.follow(chunk.attempt, chunk.delivery, chunk.execution):
            return Verdict.STALE
        if chunk.offset > len(self.reasoning):
            return Verdict.GAP
        fresh = chunk.text[len(self.reasoning) - chunk.offset :]
        self.reasoning += fresh
        return Verdict.NEWS if fresh else Verdict.NOTHING_NEW

    def finish(self, text: str, reasoning: str = "") -> bool:
        """Fill in the text of record. False: it contradicts what was shown, which then stays."""
        if reasoning.startswith(self.reasoning):
            self.reasoning = reasoning
        agrees = text.startswith(self.text[: self.shown])
        self.text = text if agrees else self.text[: self.shown]
        self.done = True
        return agrees
