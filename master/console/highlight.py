"""The words of a query in what was found. Pure; what is shown is escaped where it is shown."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile(r"\w+")
_ENDINGS: Final = ("ings", "ing", "ies", "ers", "ed", "er", "es", "s", "y")
_SHORTEST: Final = 3
"""Of a word without its ending."""


@dataclass(frozen=True)
class Part:
    """A piece of the text; `marked`: it is a word of the query."""

    text: str
    marked: bool


def piece(text: str, *, begins: bool) -> str:
    """With an ellipsis where the document was cut in the midst of something.

    `begins`: the document or a part of it does so here.
    """
    before = "" if begins else "… "
    after = " …" if text[-1:].isalnum() or text[-1:] in {",", ";"} else ""
    return f"{before}{text}{after}"


def parts(text: str, query: str) -> tuple[Part, ...]:
    """The text, cut where words of the query are; whole words, in any of their usual forms."""
    wanted = {_root(word) for word in _WORD.findall(query)}
    found: list[Part] = []
    done = 0
    for word in _WORD.finditer(text):
        if _root(word[0]) in wanted:
            found += _unmarked(text[done : word.start()])
            found.append(Part(word[0], marked=True))
            done = word.end()
    return (*found, *_unmarked(text[done:]))


def _unmarked(text: str) -> Collection[Part]:
    return [Part(text, marked=False)] if text else []


def _root(word: str) -> str:
    """About what a stemmer makes of it: enough to see why a piece was found."""
    plain = word.casefold()
    for ending in _ENDINGS:
        if plain.endswith(ending) and len(plain) - len(ending) >= _SHORTEST:
            return plain.removesuffix(ending)
    return plain
