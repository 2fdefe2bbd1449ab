"""Which statement of an answer is from which piece of which document, and who said it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from master.planning.plan import Source
from master.planning.sentences import sentences

_MARK = re.compile(r"\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\](?!\()")
"""`[1]` or `[1, 3]`; what is followed by a bracket is a link."""
_BEHIND_STOP = re.compile(r"([.!?])[ ]*((?:\[[\d,; ]+\])+)(?=\s|\Z)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LISTING = re.compile(r"^(?:Sources|Quellen|References):.*$", re.MULTILINE)
"""A list of sources at the end states nothing."""


@dataclass(frozen=True)
class Citation:
    """A sentence that cites."""

    sentence: str
    numbers: tuple[int, ...]
    """Of sources that exist, in the order of the sentence."""
    unknown: tuple[int, ...]
    """Numbers that no source has: the model made them up."""


def citations(text: str, sources: Sequence[Source]) -> list[Citation]:
    """The citing sentences of a text, in its order. Code is left out: `a[1]` cites nothing."""
    known = {source.number for source in sources}
    found = []
    for sentence in _sentences(_statements(text)):
        cited = tuple(dict.fromkeys(cited_numbers(sentence)))
        if cited:
            good = tuple(number for number in cited if number in known)
            bad = tuple(number for number in cited if number not in known)
            found.append(Citation(sentence, good, bad))
    return found


def cited_numbers(text: str) -> Iterable[int]:
    """The numbers of all citation marks of a text."""
    for mark in _MARK.finditer(text):
        yield from (int(number) for number in re.split(r"\s*[,;]\s*", mark[1]))


def marks(text: str, sources: Mapping[int, Source]) -> Iterable[tuple[int, int, Source]]:
    """Where each source is cited: start and end of the mark, in characters of the text."""
    for mark in _MARK.finditer(_statements(text)):
        for number in re.split(r"\s*[,;]\s*", mark[1]):
            if source := sources.get(int(number)):
                yield mark.start(), mark.end(), source


def _statements(text: str) -> str:
    """The text with blanks for what states nothing: code, and the list of sources at the end."""
    for other in (_FENCE, _LISTING):
        text = other.sub(lambda found: " " * len(found[0]), text)
    return text


def _sentences(text: str) -> Iterable[str]:
    """The sentences; a mark that stands behind a full stop goes before it, where it belongs."""
    joined = _BEHIND_STOP.sub(r" \2\1 ", text)
    for line in joined.splitlines():
        yield from (sentence.text for sentence in sentences(line.strip()))
