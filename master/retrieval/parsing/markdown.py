"""Markdown: headings become paths; fenced code and tables stay as they are written."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from master.retrieval.chunking import Block
from master.retrieval.parsing.headings import Headings
from master.retrieval.parsing.parsed import Parsed
from master.retrieval.parsing.plain import decode

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_CLOSING: Final = re.compile(r"(?:^|(?<=\s))#+$")
_SETEXT: Final = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_COMMENT: Final = re.compile(r"<!--(.*?)(?:-->|\Z)", re.DOTALL)


def parse(body: bytes, media_type: str | None = None) -> Parsed:
    """Blocks of a Markdown text. HTML comments are hidden text."""
    text, wrong = decode(body, media_type)
    reading = _Reading()
    blocks = tuple(reading.blocks(text.splitlines()))
    flags = {"cleaned_characters": wrong, "hidden_text_characters": reading.hidden}
    return Parsed(blocks, flags=flags, title=reading.headings.first)


@dataclass
class _Reading:
    headings: Headings = field(default_factory=Headings)
    hidden: int = 0
    held: list[str] = field(default_factory=list)
    fence: str = ""
    in_comment: bool = False

    def blocks(self, lines: list[str]) -> Iterator[Block]:
        """What the lines hold, in order."""
        for line in _front_matter(lines):
            if self.fence:
                yield from self._in_fence(line)
            elif not self.in_comment and (opening := _FENCE.match(line)):
                yield from self._flushed()
                self.fence = opening[1]
                self.held.append(line)
            elif not line.strip() and not self.in_comment:
                yield from self._flushed()
            else:
                yield from self._text(line)
        yield from self._flushed()

    def _in_fence(self, line: str) -> Iterator[Block]:
        self.held.append(line)
        closing = _FENCE.match(line)
        if closing and closing[1].startswith(self.fence) and line.strip() == closing[1]:
            yield from self._flushed()

    def _text(self, line: str) -> Iterator[Block]:
        under = _SETEXT.match(line)
        if self.in_comment:
            self.held.append(line)
        elif atx := _ATX.match(line):
            yield from self._flushed()
            title = _CLOSING.sub("", line[atx.end() :].strip())
            yield from self.headings.enter(len(atx[1]), title)
        elif under and len(self.held) == 1:
            yield from self.headings.enter(1 if under[1][0] == "=" else 2, self.held.pop())
        else:
            self.held.append(line)
        opened, closed = line.rfind("<!--"), line.rfind("-->")
        self.in_comment = opened > closed or (self.in_comment and closed < 0)

    def _flushed(self) -> Iterator[Block]:
        text = "\n".join(self.held)
        if not self.fence:
            text = _COMMENT.sub(self._hide, text)
        self.held, self.fence = [], ""
        if text.strip():
            yield Block(text.strip("\n"), self.headings.path)

    def _hide(self, comment: re.Match[str]) -> str:
        self.hidden += len(comment[1].strip())
        return ""


def _front_matter(lines: list[str]) -> list[str]:
    """Lines without the dashes around front matter, which would make headings of it."""
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return lines
    end = lines.index("---", 1)
    return [*lines[1:end], "", *lines[end + 1 :]]
