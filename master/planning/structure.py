"""What splitting finds in a question: its parts, and what is made of their answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from master.planning.language import Phrases
from queue_schemas.registry import Capability

MOST_PARTS = 8
_LONGEST_TITLE = 60
_LONGEST_MENTION = 160

_Item = TypeVar("_Item")


class Merge(StrEnum):
    """What becomes of the parts' answers."""

    NONE = "none"
    """They stand one after the other."""
    ITEMS = "items"
    """One text says what they have in common and how they differ."""
    SECTIONS = "sections"
    """One text is made of what was found in each section of a document."""


@dataclass(frozen=True)
class Part:
    """A piece of the question that can be answered on its own."""

    title: str
    ask: str
    """The bare wish, for finding passages and for engines that only search."""
    prompt: str
    """The same for a chat model, with what holds for all parts."""
    kind: Capability = Capability.CHAT
    depends_on: tuple[int, ...] = ()
    """Places of the parts whose answers this one needs."""
    document: str = ""
    """Pasted text that this part is about."""


@dataclass(frozen=True)
class Structure:
    """A question taken apart."""

    parts: tuple[Part, ...]
    reason: str
    """What was found, for a person: `3 numbered items`."""
    merge: Merge = Merge.NONE


@dataclass(frozen=True)
class Wish:
    """A part as the user wrote it, before the words around it are added."""

    text: str
    kind: Capability
    depends_on: tuple[int, ...] = ()


def parts_of(
    wishes: Sequence[Wish],
    phrases: Phrases,
    before: str = "",
    after: str = "",
    document: str = "",
    most: int = MOST_PARTS,
) -> tuple[Part, ...]:
    """Self-contained parts: each with what holds for all, and with the others named."""
    few = _grouped(wishes, most)
    mentions = [shortened(wish.text, _LONGEST_MENTION) for wish in few]
    parts = []
    for place, wish in enumerate(few):
        others = [f"- {mention}" for at, mention in enumerate(mentions) if at != place]
        limits = "\n".join([f"{phrases.only_this_part} {phrases.other_parts}", *others])
        prompt = "\n\n".join(text for text in (before, wish.text, after, limits) if text)
        parts.append(
            Part(title_of(wish.text), wish.text, prompt, wish.kind, wish.depends_on, document)
        )
    return tuple(parts)


def title_of(text: str) -> str:
    """A heading for a part: its first sentence without markup, cut at a word."""
    plain = re.sub(r"[*_`#>|<]+", "", text).strip()
    first = re.split(r"(?<=[?!。\uff1f\uff01])\s*|\.\s|\n|:\s*$", plain, maxsplit=1)[0]
    return shortened(first.rstrip(" .:;,"), _LONGEST_TITLE)


def shortened(text: str, limit: int) -> str:
    """The text on one line, cut at a word with an ellipsis where it is longer."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    head, _, _ = cut.rpartition(" ")
    return f"{head if len(head) > limit // 2 else cut}…"


def neighbours(items: Sequence[_Item], most: int) -> list[list[_Item]]:
    """The items in at most so many groups of about the same size."""
    count = min(most, len(items))
    groups: list[list[_Item]] = [[] for _ in range(count)]
    for place, item in enumerate(items):
        groups[place * count // len(items)].append(item)
    return groups


def _grouped(wishes: Sequence[Wish], most: int) -> list[Wish]:
    """At most so many wishes: neighbours together where there are more."""
    if len(wishes) <= most:
        return list(wishes)
    group = [place * most // len(wishes) for place in range(len(wishes))]
    grouped: list[Wish] = []
    for place, wish in enumerate(wishes):
        needs = tuple(sorted({group[need] for need in wish.depends_on} - {group[place]}))
        if group[place] < len(grouped):
            joined = grouped[-1]
            both = tuple(sorted({*joined.depends_on, *needs}))
            text = f"{joined.text}\n\n{wish.text}"
            grouped[-1] = replace(joined, text=text, depends_on=both)
        else:
            grouped.append(replace(wish, depends_on=needs))
    return grouped
