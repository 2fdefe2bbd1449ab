"""Cutting a document's blocks into chunks. Sizes are words."""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, count, groupby, takewhile
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_CJK: Final = (
    "\u2e80-\u2fdf\u3001-\u30ff\u31c0-\u9fff\uf900-\ufaff\uff65-\uff9f\U00020000-\U0003fffd"
)
# Scripts without spaces: each character is about a token of a model, so each is a word here.
_WORD: Final = re.compile(rf"[{_CJK}]|[^\s{_CJK}]{{1,1000}}")
_BETWEEN: Final = "\n\n"
# Padding, of which a file may have megabytes between two words.
_GAP: Final = re.compile(r"\s{1000,}")

LONGEST_CHUNK: Final = 2000
"""Words: more than any embedding model takes in well, and than a prompt has room for."""
_SENTENCE_END: Final = re.compile(r"[.!?؟…]{1,9}[\"'”»)*_]{0,9}(?=\s)|[。\uff01\uff1f]+|\n\s*\n")


class Method(StrEnum):
    """Where chunks may end."""

    WORDS = "words"
    SENTENCES = "sentences"
    HEADINGS = "headings"


class Chunking(BaseModel):
    """How a collection's documents are cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = Method.WORDS
    size: int = Field(512, ge=1, le=LONGEST_CHUNK)
    overlap: int = Field(50, ge=0)

    @model_validator(mode="after")
    def _overlap_at_most_half(self) -> Self:
        if self.overlap * 2 > self.size:  # more would make many times the text out of a text
            raise ValueError("overlap must be at most half of size")
        return self

    @classmethod
    def fitting(cls, stored: Mapping[str, Any], most_words: int = LONGEST_CHUNK) -> Self:
        """As a collection has it, with chunks of at most so many words."""
        asked, overlap = stored["size"], stored["overlap"]
        size = min(asked, most_words, LONGEST_CHUNK)
        overlap = min(overlap * size // asked, size // 2)
        return cls(method=stored["method"], size=size, overlap=overlap)


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list, table or row, with the headings above it. `page` counts from 1."""

    text: str
    heading_path: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A chunk that is not searchable yet. Its headings are those above all of it."""

    position: int
    text: str
    heading_path: tuple[str, ...]
    page: int | None


def cut(blocks: Iterable[Block], chunking: Chunking) -> Iterator[Draft]:
    """The chunks of a document, in order.

    No chunk lies on two pages, or nobody could say on which one a sentence is.
    """
    by_heading = chunking.method is Method.HEADINGS
    position = count()
    kept = (block for block in blocks if block.text.strip())
    for _, run in groupby(kept, key=lambda b: (b.page, b.heading_path if by_heading else ())):
        yield from _cut_run(list(run), chunking, position)


def _cut_run(blocks: list[Block], chunking: Chunking, position: Iterator[int]) -> Iterator[Draft]:
    # A blank line, or a heading would read as the beginning of the sentence below it.
    text = _BETWEEN.join(block.text for block in blocks)
    begins = list(accumulate((len(block.text) + len(_BETWEEN) for block in blocks), initial=0))
    words = _Words(text)
    if chunking.method is Method.SENTENCES:
        spans = _packed(_sentences(text, begins, words), chunking)
    else:
        spans = _windows(len(words.starts), chunking)
    for first, end in spans:
        start, stop = words.starts[first], words.ends[end - 1]
        inside = blocks[bisect_right(begins, start) - 1 : bisect_left(begins, stop)]
        paths = [block.heading_path for block in inside]
        piece = _GAP.sub(_BETWEEN, text[start:stop])
        yield Draft(next(position), piece, _common(paths), inside[0].page)


def _common(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The headings that all of them begin with."""
    # What all have in common, the least and the greatest have.
    least, greatest = min(paths), max(paths)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(least, greatest, strict=False))
    return tuple(heading for heading, _ in same)


class _Words:
    """Where the words of a text are; arrays, since a text may have millions."""

    def __init__(self, text: str) -> None:
        self.starts = array("L")
        self.ends = array("L")
        for found in _WORD.finditer(text):
            self.starts.append(found.start())
            self.ends.append(found.end())


def _windows(count: int, chunking: Chunking) -> Iterator[tuple[int, int]]:
    """Spans of words, each beginning `overlap` words before the end of the last."""
    first = 0
    while first < count:
        end = min(first + chunking.size, count)
        yield first, end
        first = end - chunking.overlap if end < count else count


def _sentences(text: str, begins: list[int], words: _Words) -> list[int]:
    """The word after each sentence, in order. A block ends a sentence too."""
    ends = {bisect_left(words.starts, begin) for begin in begins}
    ends |= {bisect_left(words.starts, found.end()) for found in _SENTENCE_END.finditer(text)}
    return sorted((ends | {len(words.starts)}) - {0})


def _packed(ends: list[int], chunking: Chunking) -> Iterator[tuple[int, int]]:
    """Spans of whole sentences; one that is longer than a chunk is cut into windows."""
    sentences = list(_fitting(ends, chunking.size))
    held: list[tuple[int, int]] = []
    for sentence in sentences:
        if held and sentence[1] - held[0][0] > chunking.size:
            yield held[0][0], held[-1][1]
            held = _carried(held, chunking, sentence)
        held.append(sentence)
    if held:
        yield held[0][0], held[-1][1]


def _fitting(ends: list[int], size: int) -> Iterator[tuple[int, int]]:
    first = 0
    for end in ends:
        while end - first > size:
            yield first, first + size
            first += size
        if first < end:
            yield first, end
        first = end


def _carried(
    held: list[tuple[int, int]], chunking: Chunking, following: tuple[int, int]
) -> list[tuple[int, int]]:
    """The last sentences of a chunk that the next repeats."""
    end = held[-1][1]
    reach = max(end - chunking.overlap, following[1] - chunking.size)
    return [sentence for sentence in held[1:] if sentence[0] >= reach]
