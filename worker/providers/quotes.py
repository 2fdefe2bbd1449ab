"""Cutting documents into pieces that can be quoted: sentences, list items, tables, code. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from queue_schemas.messages import Passage

LONGEST_BLOCK_LINES: Final = 14
"""A longer code block is not a quotation any more."""

_FENCE: Final = re.compile(r"\s*(```|~~~)")
_HEADING: Final = re.compile(r"\s{0,3}#{1,6}\s+(.*?)\s*#*$")
_ITEM: Final = re.compile(r"(\s*)(?:[-*+•]|\d{1,3}[.)])\s+(?=\S)")
_RULE: Final = re.compile(r"\s*([-*_=]\s*){3,}$")
_TABLE_RULE: Final = re.compile(r"\s*\|?(\s*:?-{2,}:?\s*\|?)+\s*$")
_QUOTE_MARK: Final = re.compile(r"^\s*>\s?")

# A full stop ends a sentence when something that can begin one follows, unless it belongs to an
# abbreviation, an initial, a number or an ellipsis.
# The escapes are the curly quotes and the full stops of Chinese and Japanese.
_STOPS: Final = ".!?\u2026"
_WIDE_STOPS: Final = "\u3002\uff01\uff1f"
_SENTENCE_END: Final = re.compile(
    rf"(?<=[{_STOPS}])[\"'\u201d\u2019)\]*_`]*\s+(?=[\"'\u201c\u2018(\[*_`]*[A-Z0-9\u00c0-\u00de])"
    rf"|(?<=[{_WIDE_STOPS}])"
)
_REFERENCE: Final = re.compile(r"[\[(][^\])]*[\])]\.?$")
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:pp?|e\.g|i\.e|z\.B|d\.h|etc|vs|cf|approx|ca|bzw|Dr|Mr|Mrs|Ms|Prof|No|Nr|Fig|Sec|St"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec)|\b[A-Z])\.$"
)


class Kind(Enum):
    """What a quote is, which decides how it is shown."""

    SENTENCE = auto()
    ITEM = auto()
    ROW = auto()
    CODE = auto()


@dataclass(frozen=True)
class Quote:
    """A piece of a passage."""

    text: str
    kind: Kind
    passage: int
    """The passage's citation mark."""
    position: int
    """Where it stands within all passages."""
    heading: str = ""
    """The nearest heading above, which says what the piece is about."""
    frame: str = ""
    """For a row of a table: the lines of its head."""


def quotes(passages: tuple[Passage, ...]) -> list[Quote]:
    """Everything in the passages that can be quoted, in their order."""
    found: list[Quote] = []
    for passage in passages:
        for text, kind, heading, frame in _pieces(passage.text.splitlines()):
            found.append(Quote(text, kind, passage.number, len(found), heading, frame))
    return found


_Piece = tuple[str, Kind, str, str]


def _pieces(lines: list[str]) -> Iterator[_Piece]:
    heading, at = "", 0
    while at < len(lines):
        line = _QUOTE_MARK.sub("", lines[at])
        if found := _HEADING.match(line):
            heading, at = found[1], at + 1
        elif not line.strip() or _RULE.match(line):
            at += 1
        else:
            end, pieces = _block(lines, at)
            for text, kind, frame in pieces:
                yield text, kind, heading, frame
            at = end


_Block = tuple[int, list[tuple[str, Kind, str]]]


def _block(lines: list[str], start: int) -> _Block:
    """The block that begins here: where it ends, and its pieces."""
    if _FENCE.match(lines[start]):
        return _code(lines, start)
    if lines[start].lstrip().startswith("|"):
        return _table(lines, start)
    return _prose(lines, start)


def _code(lines: list[str], start: int) -> _Block:
    mark = lines[start].strip()[:3]
    end = start + 1
    while end < len(lines) and not lines[end].strip().startswith(mark):
        end += 1
    block = lines[start:end]
    if len(block) > LONGEST_BLOCK_LINES or len(block) < 2:
        return end + 1, []
    return end + 1, [("\n".join([*block, mark]), Kind.CODE, "")]


def _table(lines: list[str], start: int) -> _Block:
    end = start
    while end < len(lines) and lines[end].lstrip().startswith("|"):
        end += 1
    rows = [line.strip() for line in lines[start:end]]
    if len(rows) > 2 and _TABLE_RULE.match(rows[1]):
        frame, rows = "\n".join(rows[:2]), rows[2:]
    else:
        # A passage that begins within a table has no head; a row without one is a sentence.
        return end, [(" · ".join(_cells(row)), Kind.SENTENCE, "") for row in rows if _cells(row)]
    return end, [(row, Kind.ROW, frame) for row in rows]


def _cells(row: str) -> list[str]:
    if _TABLE_RULE.match(row):
        return []
    return [cell.strip() for cell in row.strip().strip("|").split("|") if cell.strip()]


def _prose(lines: list[str], start: int) -> _Block:
    """A paragraph or one list item, with its wrapped lines joined."""
    item = _ITEM.match(lines[start])
    text = [lines[start][item.end() :] if item else _QUOTE_MARK.sub("", lines[start])]
    end = start + 1
    while end < len(lines) and _continues(lines[end]):
        text.append(_QUOTE_MARK.sub("", lines[end]))
        end += 1
    joined = " ".join(line.strip() for line in text)
    pieces = sentences(joined)
    if item and len(joined) <= 300:
        pieces = [joined]
    return end, [(piece, Kind.ITEM if item else Kind.SENTENCE, "") for piece in pieces]


def _continues(line: str) -> bool:
    blank = not line.strip()
    starts = _HEADING.match(line) or _ITEM.match(line) or _FENCE.match(line) or _RULE.match(line)
    return not (blank or starts or line.lstrip().startswith("|"))


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph."""
    found: list[str] = []
    joined, begin = False, 0
    for end in (*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)):
        piece, begin = text[begin:end].strip(), end
        if not piece:
            continue
        if found and (joined or _REFERENCE.match(piece)):
            found[-1] = f"{found[-1]} {piece}"
        else:
            found.append(piece)
        joined = bool(_ABBREVIATION.search(piece))
    return found
