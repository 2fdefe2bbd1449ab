"""What changed from one text to another, word by word; and from one version of a rule. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from db.rules import StoredRule

_WORD: Final = re.compile(r"\s*\S+|\s+$")
_SENTENCE: Final = re.compile(r"[^.!?\n]*[.!?\n]+|[^.!?\n]+")
_MOST_CELLS: Final = 25_000
"""Of the table that is filled, some milliseconds in which this replica does nothing else."""


class Was(StrEnum):
    """What became of a piece of text."""

    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True)
class Piece:
    """Some words, and what became of them."""

    was: Was
    text: str


@dataclass(frozen=True)
class Field:
    """One thing that a rule says, before and after."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def changed(self) -> bool:
        """Whether it says something else."""
        return any(piece.was is not Was.SAME for piece in self.pieces)


def words(before: str, after: str) -> tuple[Piece, ...]:
    """Both texts in one: what is in both once, what is in one of them as removed or added.

    Where that are too many words, sentence by sentence; beyond that they differ as a whole.
    """
    attempts = (_told(unit.findall(before), unit.findall(after)) for unit in (_WORD, _SENTENCE))
    whole = [(Was.REMOVED, before), (Was.ADDED, after)]
    told = next((found for found in attempts if found is not None), whole)
    return tuple(
        Piece(was, "".join(unit for _, unit in run))
        for was, run in groupby(told, key=lambda each: each[0])
    )


def _told(old: Sequence[str], new: Sequence[str]) -> list[tuple[Was, str]] | None:
    """What became of each word; None where it would take too long."""
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    ends = len(old) - tail, len(new) - tail
    if (ends[0] - head) * (ends[1] - head) > _MOST_CELLS:
        return None
    middle = _middle(old[head : ends[0]], new[head : ends[1]])
    return [
        *((Was.SAME, each) for each in old[:head]),
        *middle,
        *((Was.SAME, each) for each in old[ends[0] :]),
    ]


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    """How many words at the beginning are the same."""
    places = range(min(len(old), len(new)))
    return next((place for place in places if old[place] != new[place]), len(places))


def _middle(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[Was, str]]:
    longest = _longest(old, new)
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] == new[j]:
            yield Was.SAME, old[i]
            i, j = i + 1, j + 1
        elif j == len(new) or (i < len(old) and longest[i + 1][j] >= longest[i][j + 1]):
            yield Was.REMOVED, old[i]
            i += 1
        else:
            yield Was.ADDED, new[j]
            j += 1


def _longest(old: Sequence[str], new: Sequence[str]) -> list[list[int]]:
    """How many words the rests from `i` and from `j` on have in common, in their order."""
    rows = [[0] * (len(new) + 1)]
    for word in reversed(old):
        below, row = rows[-1], [0] * (len(new) + 1)
        for j in range(len(new) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if word == new[j] else max(below[j], row[j + 1])
        rows.append(row)
    return rows[::-1]


def fields(before: StoredRule | None, after: StoredRule) -> tuple[Field, ...]:
    """Every field of either version, in the order in which a person reads them."""
    old, new = said(before) if before else {}, said(after)
    names = [*new, *(name for name in old if name not in new)]
    return tuple(Field(name, words(old.get(name, ""), new.get(name, ""))) for name in names)


def said(rule: StoredRule) -> dict[str, str]:
    """What a version says, by field, as words."""
    change = {name: _shown(rule.change[name]) for name in sorted(rule.change) if name != "kind"}
    return {"kind": rule.kind, **change, "where": _shown(rule.scope) or "everywhere"}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(each)}" for name, each in sorted(value.items()))
    if isinstance(value, list | tuple):
        return " or ".join(_shown(each) for each in value)
    return str(value)
