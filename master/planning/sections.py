"""A long document in the question, worked on section by section."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from master.planning.chat import estimate_tokens
from master.planning.language import Phrases
from master.planning.masking import Masked
from master.planning.structure import MOST_PARTS, Merge, Part, Structure, shortened
from master.planning.wording import asks_for_summary
from queue_schemas.registry import Capability

LONG_DOCUMENT_TOKENS = 1200
_TOKENS_PER_PART = 500
_LONGEST_REQUEST = 600
_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*)$", re.MULTILINE)
_EXTRACTS = re.compile(
    r"\b(?:extract|list all|find all|collect|action items|todos?|sammle|liste alle|extrahiere)\b",
    re.IGNORECASE,
)
_EACH_SECTION = re.compile(
    r"\b(?:(?:each|every|per|by) (?:section|chapter)|jede[nmrs]? (?:abschnitt\w*|kapitels?)"
    r"|abschnittsweise|kapitelweise|pro (?:abschnitt|kapitel))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pasted:
    """A question that holds a document."""

    request: str
    document: str


@dataclass(frozen=True)
class _Section:
    title: str
    text: str

    @property
    def tokens(self) -> int:
        return estimate_tokens(self.text)


def find_document(text: str) -> Pasted | None:
    """The document, which begins with a markdown heading, and what is asked about it."""
    headings = list(_HEADING.finditer(text))
    if len(headings) < 2:
        return None
    before = text[: headings[0].start()].strip()
    document = text[headings[0].start() :].strip()
    if before:
        return Pasted(before, document) if len(before) <= _LONGEST_REQUEST else None
    document, _, after = document.rpartition("\n\n")
    if not document or len(after) > _LONGEST_REQUEST or after.startswith("#"):
        return None
    return Pasted(after.strip(), document.strip())


def find_sections(
    pasted: Pasted, masked: Masked, phrases: Phrases, most: int = MOST_PARTS
) -> Structure | None:
    """Groups of sections to summarise or to search, when the document is long enough."""
    request = masked.restore(pasted.request)
    summary = asks_for_summary(pasted.request)
    if not (summary or _EXTRACTS.search(pasted.request)):
        return None
    sections = [
        _Section(section.title, masked.restore(section.text)) for section in _cut(pasted.document)
    ]
    tokens = sum(section.tokens for section in sections)
    if tokens < LONG_DOCUMENT_TOKENS or len(sections) < 2:
        return None
    groups = _groups(sections, min(most, max(2, tokens // _TOKENS_PER_PART)))
    if len(groups) < 2:
        return None
    kind = Capability.SUMMARY if summary else Capability.CHAT
    parts = tuple(_part(request, group, kind, phrases) for group in groups)
    each = _EACH_SECTION.search(pasted.request)
    reason = f"a document of about {tokens} tokens in {len(sections)} sections"
    return Structure(parts, reason, Merge.NONE if each else Merge.SECTIONS)


def _part(request: str, group: Sequence[_Section], kind: Capability, phrases: Phrases) -> Part:
    text = "\n\n".join(section.text for section in group)
    first, last = group[0].title, group[-1].title
    title = shortened(first if first == last else f"{first} \u2013 {last}", 60)
    return Part(title, request, f"{request}\n\n{phrases.document}", kind, document=text)


def _cut(document: str) -> list[_Section]:
    """The sections of the outermost level that has several; deeper ones stay inside."""
    headings = list(_HEADING.finditer(document))
    levels = [len(heading.group(1)) for heading in headings]
    level = next((level for level in range(1, 7) if sum(at <= level for at in levels) >= 3), 6)
    starts = [heading for heading in headings if len(heading.group(1)) <= level]
    ends = [heading.start() for heading in starts[1:]] + [len(document)]
    return [
        _Section(heading.group(2).strip(" #*"), document[heading.start() : end].strip())
        for heading, end in zip(starts, ends, strict=True)
    ]


def _groups(sections: Sequence[_Section], count: int) -> list[list[_Section]]:
    """Neighbouring sections together, in groups of about the same length."""
    share = sum(section.tokens for section in sections) / count
    groups: dict[int, list[_Section]] = {}
    before = 0
    for section in sections:
        # The group is decided by where the middle of the section lies in the document.
        place = min(count - 1, int((before + section.tokens / 2) / share))
        groups.setdefault(place, []).append(section)
        before += section.tokens
    return list(groups.values())
