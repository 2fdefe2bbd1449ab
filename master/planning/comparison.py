"""One wish about several things: `compare A, B and C`, `for each of A, B and C`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from master.planning.language import Phrases
from master.planning.sentences import sentences
from master.planning.structure import (
    MOST_PARTS,
    Merge,
    Part,
    Structure,
    neighbours,
    shortened,
)
from master.planning.wording import kind_of

_LONGEST_TEXT = 800
_MOST_SENTENCES = 5
_MOST_WORDS_PER_ITEM = 6
_CRITERIA = (
    r"(?:\s*[,:]?\s+(?:regarding|in terms of|with (?:respect|regard) to|concerning|based on|by|on"
    r"|for|considering|hinsichtlich|bezüglich|in bezug auf|im hinblick auf|nach|anhand|bei|für)"
    r"\s+(?P<criteria>.+?))?"
)
_COMPARISONS = tuple(
    re.compile(rf"{pattern}\s+(?P<items>.+?){_CRITERIA}\s*[.?!]*\Z", re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"\b(?:compare|contrast|a comparison (?:of|between)|the pros and cons of"
        r"|(?:the )?advantages and disadvantages of)(?: the following)?:?",
        r"\b(?:vergleich(?:e|st)?(?: (?:bitte|mir|mal|du|die|den|das))*"
        r"|einen vergleich (?:von|zwischen)|(?:die )?vor- und nachteile von)",
    )
)
_DIFFERENCES = re.compile(
    rf"\b(?:differences? (?:between|among)|unterschiede? zwischen)\s+(?P<items>.+?){_CRITERIA}"
    r"\s*[.?!]*\Z",
    re.IGNORECASE | re.DOTALL,
)
_FOR_EACH = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"\b(?:for each of(?: the following| these)?|for each|für jede[nrs]?(?: von| der)?"
        r"(?: folgenden)?|jeweils für):?\s+(?P<items>[^.?!:]+?\s(?:and|or|und|oder|&)\s[^,.?!:]+)"
        r"(?:[,:]\s*\S|\s*[.?!]*\Z)",
        r"\b(?:für|for)\s+(?P<items>[^.?!:]+?\s(?:and|und)\s[^,.?!:]+?)\s+(?:jeweils|each)\b",
    )
)
_BETWEEN_ITEMS = re.compile(
    r"\s*,\s*(?:(?:and|und|or|oder|&)\s+)?|\s+(?:and|und|or|oder|&|vs\.?|versus|with|mit|gegenüber)\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Found:
    items: tuple[str, ...]
    criteria: str = ""


def find_comparison(text: str, phrases: Phrases, most: int = MOST_PARTS) -> Structure | None:
    """One part for each thing compared; what they have in common is left to the synthesis."""
    found = _compared(text)
    if found is None:
        return None
    reason = f"a comparison of {len(found.items)} things"
    return Structure(_one_part_each(text, found, phrases, most), reason, Merge.ITEMS)


def find_for_each(text: str, phrases: Phrases, most: int = MOST_PARTS) -> Structure | None:
    """One part for each thing that the wish names."""
    for pattern in _FOR_EACH if _is_short(text) else ():
        found = pattern.search(text)
        items = _items(found["items"]) if found else ()
        if len(items) >= 2 and _ends_with_an_item(items):
            reason = f"the same for each of {len(items)} things"
            return Structure(_one_part_each(text, _Found(items), phrases, most), reason)
    return None


def _compared(text: str) -> _Found | None:
    if not _is_short(text):
        return None
    for sentence in sentences(text):
        for pattern in (*_COMPARISONS, _DIFFERENCES):
            found = pattern.search(sentence.text)
            items = _items(found["items"]) if found else ()
            criteria = (found["criteria"] or "") if found else ""
            # Two things without a criterion are one question, and so is a difference of two.
            enough = 2 if criteria and pattern is not _DIFFERENCES else 3
            if len(items) >= enough:
                return _Found(items, criteria)
    return None


def _one_part_each(text: str, found: _Found, phrases: Phrases, most: int) -> tuple[Part, ...]:
    parts = []
    items = [", ".join(group) for group in neighbours(found.items, most)]
    for item in items:
        others = ", ".join(other for other in items if other != item)
        limits = phrases.only_this_item.format(item=item, others=others)
        ask = f"{item}: {found.criteria}" if found.criteria else f"{item} ({shortened(text, 300)})"
        parts.append(Part(item, ask, f"{text}\n\n{limits}", kind_of(text)))
    return tuple(parts)


def _ends_with_an_item(items: Sequence[str]) -> bool:
    """Not with an item and the rest of the sentence: `für Köln und Ulm die Einwohnerzahl`."""
    *others, last = (len(item.split()) for item in items)
    return last <= max(others) + 1


def _items(text: str) -> tuple[str, ...]:
    items = [item.strip(" .?!:;\n") for item in _BETWEEN_ITEMS.split(text)]
    distinct = len({item.lower() for item in items}) == len(items)
    fitting = all(0 < len(item.split()) <= _MOST_WORDS_PER_ITEM for item in items)
    return tuple(items) if distinct and fitting and len(items) <= MOST_PARTS else ()


def _is_short(text: str) -> bool:
    return len(text) <= _LONGEST_TEXT and len(sentences(text)) <= _MOST_SENTENCES
