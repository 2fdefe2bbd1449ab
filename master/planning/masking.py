"""Hiding what is quoted in a question, so that rules look at the user's own words only.

Code blocks, tagged blocks, block quotes and short quotations become one character each, and are
put back into the parts afterwards. So no rule can cut one in half.
"""

import re
from dataclasses import dataclass

_FIRST_MARK = 0xF0000
_MARKS = re.compile("[\U000f0000-\U000ffffd]")
_MOST_BLOCKS = 60_000
_MOST_TAG_NAMES = 40
_TAG = re.compile(r"<([A-Za-z][\w-]*)(?:\s[^<>\n]*)?>")
_QUOTATION = re.compile(
    r'"[^"\n]{1,300}"|„[^“”\n]{1,300}[“”]|“[^”\n]{1,300}”|«[^»\n]{1,300}»|`[^`\n]{1,300}`'
    r"|(?<![\w'])'[^'\n]{1,300}'(?!\w)"
)


@dataclass(frozen=True)
class Masked:
    """A text with marks in place of what it quotes."""

    text: str
    blocks: tuple[str, ...]

    def restore(self, text: str) -> str:
        """A piece of the masked text with its quotations put back."""
        # A block can hold marks of blocks that were hidden before it.
        while _MARKS.search(text):
            text = _MARKS.sub(lambda mark: self.blocks[ord(mark.group()) - _FIRST_MARK], text)
        return text


def mask(text: str) -> Masked | None:
    """Hide quotations; None for a text that cannot be masked, which is then not taken apart."""
    if _MARKS.search(text):
        return None
    blocks: list[str] = []
    masked = _hide(text, _fences(text), blocks)
    masked = _hide(masked, _triple_quoted(masked), blocks)
    masked = _hide(masked, _tagged(masked), blocks)
    masked = _hide(masked, _block_quotes(masked), blocks)
    masked = _hide(masked, [found.span() for found in _QUOTATION.finditer(masked)], blocks)
    return Masked(masked, tuple(blocks)) if len(blocks) < _MOST_BLOCKS else None


def _hide(text: str, spans: list[tuple[int, int]], blocks: list[str]) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces += [text[done:start], chr(_FIRST_MARK + min(len(blocks), _MOST_BLOCKS))]
        blocks.append(text[start:end])
        done = end
    return "".join([*pieces, text[done:]])


def _lines(text: str) -> list[tuple[int, str]]:
    lines, start = [], 0
    for line in text.splitlines(keepends=True):
        lines.append((start, line))
        start += len(line)
    return lines


def _fences(text: str) -> list[tuple[int, int]]:
    spans, fence, opened = [], "", 0
    for start, line in _lines(text):
        mark = line.strip()
        if not fence and mark.startswith(("```", "~~~")):
            fence, opened = mark[:3], start
        elif fence and mark.startswith(fence) and not mark.strip(fence[0]):
            spans.append((opened, start + len(line.rstrip("\r\n"))))
            fence = ""
    return [*spans, (opened, len(text))] if fence else spans


def _triple_quoted(text: str) -> list[tuple[int, int]]:
    places = [found.start() for found in re.finditer('"""', text)]
    pairs = zip(places[::2], places[1::2], strict=False)
    return [(start, end + 3) for start, end in pairs]


def _tagged(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    done, without_end = 0, set[str]()
    for tag in _TAG.finditer(text):
        name = tag.group(1)
        if tag.start() < done or name in without_end or len(without_end) > _MOST_TAG_NAMES:
            continue
        end = text.find(f"</{name}>", tag.end())
        if end < 0:
            without_end.add(name)
            continue
        done = end + len(name) + 3
        spans.append((tag.start(), done))
    return spans


def _block_quotes(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for start, line in _lines(text):
        if not line.lstrip(" ").startswith(">"):
            continue
        end = start + len(line.rstrip("\r\n"))
        if spans and not text[spans[-1][1] : start].strip("\r\n"):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans
