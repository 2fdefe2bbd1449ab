"""What may be shown next, given what was shown.

The answer is the segments one after the other. Its head is shown live: the segment under the
cursor as its text grows, the next ones when all before them have ended. A cursor says how much
was shown, so any replica can go on from it; what was shown is never taken back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from master.aggregation.layout import Segment

SEPARATOR = "\n\n"


@dataclass(frozen=True, order=True)
class Cursor:
    """How much of an answer was shown: all segments before this one, and so much of this one."""

    segment: int = 0
    offset: int = 0
    """Characters of the segment as shown, with separator, heading and closing note."""


@dataclass(frozen=True)
class PartText:
    """The text of a step as far as it is known. It only ever grows."""

    text: str = ""
    done: bool = False
    """No more text will come."""
    missing: str | None = None
    """Why it could not be answered; also ends it. `text` may hold what came before that."""

    @property
    def ended(self) -> bool:
        """Whether this is the whole text."""
        return self.done or self.missing is not None


def advance(
    cursor: Cursor, segments: Sequence[Segment], texts: Mapping[str, PartText]
) -> tuple[Cursor, str]:
    """The new cursor, and the text that may be shown after what was shown already."""
    shown: list[str] = []
    while cursor.segment < len(segments):
        part = texts.get(segments[cursor.segment].step_key)
        if part is None or not (part.text or part.ended):
            break
        piece = _after(cursor, segments, part)
        shown.append(piece)
        if not part.ended:
            cursor = Cursor(cursor.segment, cursor.offset + len(piece))
            break
        cursor = Cursor(cursor.segment + 1)
    return cursor, "".join(shown)


def is_complete(cursor: Cursor, segments: Sequence[Segment]) -> bool:
    """Whether everything was shown; never so while there are no segments."""
    return bool(segments) and cursor.segment >= len(segments)


def final_text(segments: Sequence[Segment], texts: Mapping[str, PartText]) -> str:
    """The whole answer; the same as everything that `advance` ever returned, joined."""
    return advance(Cursor(), segments, texts)[1]


def _after(cursor: Cursor, segments: Sequence[Segment], part: PartText) -> str:
    """What follows the cursor in its segment, without building what lies before it."""
    segment = segments[cursor.segment]
    last = cursor.segment == len(segments) - 1
    head = (SEPARATOR if cursor.segment else "") + segment.heading
    tail = _tail(segment, part, last) if part.ended else ""
    in_text = cursor.offset - len(head)
    if in_text < 0:
        return head[cursor.offset :] + part.text + tail
    return part.text[in_text:] + tail


def _tail(segment: Segment, part: PartText, last: bool) -> str:
    tail = "" if last and part.missing is None else _closing_fence(part.text)
    if part.missing is None:
        return tail
    reason = " ".join(part.missing.split()).rstrip(".") or "no reason was given"
    extent = " completely" if part.text else ""
    note = f"*{segment.label} could not be answered{extent}: {reason}.*"
    return tail + (SEPARATOR if part.text else "") + note


def _closing_fence(text: str) -> str:
    """Closes a code block that was cut off, so that it does not swallow what follows."""
    fence = ""
    for line in text.splitlines():
        mark = line.strip()
        if not fence and mark.startswith(("```", "~~~")):
            fence = mark[0] * (len(mark) - len(mark.lstrip(mark[0])))
        elif fence and mark.startswith(fence) and not mark.strip(fence[0]):
            fence = ""
    return f"\n{fence}" if fence else ""
