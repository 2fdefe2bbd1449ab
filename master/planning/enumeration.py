"""Finding the list in a question: numbered, lettered or bulleted, on lines or within one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINE_MARK = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?P<number>\d{1,2})[.)]|\((?P<inner>\d{1,2}|[a-z])\)"
    r"|(?P<letter>[a-z])[.)]"
    r"|(?P<bullet>[-*+•\u2013]))[ \t]+(?=\S)",
    re.MULTILINE,
)
_INLINE_MARK = re.compile(r"(?:(?<=\s)|\A)(?:\(?(\d{1,2}|[a-h])\)|(\d)\.)[ \t]+(?=\S)")
_TAIL = re.compile(r"\n[ \t]*\n(?=\S)")
_JOINING = re.compile(r"(?:[,;]|\s)*(?:(?<=[\s,;])(?:and|und))?\s*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Enumeration:
    """A list and the words around it."""

    before: str
    items: tuple[str, ...]
    after: str
    style: str
    """number | letter | bullet"""


@dataclass(frozen=True)
class _Mark:
    start: int
    end: int
    style: str
    ordinal: int
    """Counted from 1; 0 for a bullet."""


def find_enumeration(text: str) -> Enumeration | None:
    """The one list of the text; None when there is none, or more than one."""
    for marks in (_line_marks(text), _inline_marks(text)):
        if len(marks) >= 2:
            return _enumeration(text, marks) if _counts_up(marks) else None
    return None


def _enumeration(text: str, marks: Sequence[_Mark]) -> Enumeration | None:
    ends = [mark.start for mark in marks[1:]] + [len(text)]
    items = [text[mark.end : end].strip() for mark, end in zip(marks, ends, strict=True)]
    last, after = _without_tail(items[-1])
    items[-1] = last
    if marks[0].style == "bullet" and any(_TAIL.search(item) for item in items[:-1]):
        return None  # text between the bullets: two lists, or a document
    trimmed = tuple(_JOINING.sub("", item) for item in items)
    if not all(trimmed):
        return None
    return Enumeration(text[: marks[0].start].strip(), trimmed, after, marks[0].style)


def _line_marks(text: str) -> list[_Mark]:
    """The marks of the outermost list; what is indented further belongs to an item."""
    found = list(_LINE_MARK.finditer(text))
    if not found:
        return []
    outermost = min(len(mark["indent"].expandtabs(4)) for mark in found)
    # A list may be indented by a blank or two without being nested.
    outer = [mark for mark in found if len(mark["indent"].expandtabs(4)) <= outermost + 1]
    marks = [_mark(mark) for mark in outer]
    ordered = [mark for mark in marks if mark.style == marks[0].style]
    # Bullets below numbers, not indented, are details of the numbered item.
    return ordered if marks[0].style != "bullet" or len(ordered) == len(marks) else []


def _mark(found: re.Match[str]) -> _Mark:
    word = found["number"] or found["inner"] or found["letter"]
    return _Mark(found.start(), found.end(), _style(word), _ordinal(word))


def _inline_marks(text: str) -> list[_Mark]:
    """Marks within a line: the longest run 1, 2, 3 or a, b, c from the first one on."""
    run: list[_Mark] = []
    for found in _INLINE_MARK.finditer(text):
        word = found.group(1) or found.group(2)
        mark = _Mark(found.start(), found.end(), _style(word), _ordinal(word))
        if mark.ordinal == len(run) + 1 and (not run or mark.style == run[0].style):
            run.append(mark)
    return run


def _counts_up(marks: Sequence[_Mark]) -> bool:
    if marks[0].style == "bullet":
        return True
    # Markdown also numbers a list 1. 1. 1.
    ordinals = [mark.ordinal for mark in marks]
    return ordinals == list(range(1, len(marks) + 1)) or set(ordinals) == {1}


def _without_tail(item: str) -> tuple[str, str]:
    """The last item ends at a blank line that is followed by text at the margin."""
    tail = _TAIL.search(item)
    return (item[: tail.start()].strip(), item[tail.end() :].strip()) if tail else (item, "")


def _style(word: str | None) -> str:
    if word is None:
        return "bullet"
    return "number" if word.isdigit() else "letter"


def _ordinal(word: str | None) -> int:
    if word is None:
        return 0
    return int(word) if word.isdigit() else ord(word) - ord("a") + 1
