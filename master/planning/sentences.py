"""Cutting a text into sentences, well enough to find its questions."""

import re
from dataclasses import dataclass

_END = re.compile(r"[.!?؟…]+[\"'”»)*_]*(?=\s|\Z)|[。\uff01\uff1f]+|\n\s*\n|\n(?=\S)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|dr|mr|mrs|ms|prof|no|nr|approx|z\.\s?b|d\.\s?h|usw|bzw|ca|inkl|u\.\s?a)"
    r"|\b[A-Za-z])\.\Z",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[?\uff1f؟][\"'”»)*_!?.]*\s*\Z")


@dataclass(frozen=True)
class Sentence:
    """A sentence as it was written."""

    text: str

    @property
    def is_question(self) -> bool:
        """Whether it ends with a question mark."""
        return bool(_QUESTION.search(self.text))

    @property
    def words(self) -> int:
        """How many words; a wide character counts as half a word."""
        wide = sum(character >= "\u2e80" for character in self.text if character < "\U000f0000")
        return len(self.text.split()) + wide // 2


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text, in order, without empty ones."""
    found, start = [], 0
    for end in _END.finditer(text):
        piece = text[start : end.end()]
        if _ABBREVIATION.search(piece):
            continue
        found.append(piece.strip())
        start = end.end()
    found.append(text[start:].strip())
    return [Sentence(piece) for piece in found if piece]
