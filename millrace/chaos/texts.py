"""Answers that betray what was done to them. Pure.

Every word names its prompt and its place, so a gap, a repetition or a stranger's text shows. An
engine is steady or wayward: a wayward one also writes the number of its call into each word, so
that it never says the same twice, and a text shows which call wrote which part of it.
"""

import hashlib
import re
from collections.abc import Sequence

WAYWARD = "wayward"
"""Prompts with this word are answered differently each time."""
_FEWEST, _MOST = 15, 60
_WORD = re.compile(r"([0-9a-f]{6})\.(\d+)(?:\.c(\d+))?")


def pieces(prompt: str, call: int, shown: str = "") -> tuple[str, ...]:
    """What an engine sends at its so-many-th call for a prompt, to go on from a shown prefix."""
    # Of one length, so that texts of two calls that are joined at a place still have whole words.
    mark = f".c{call:03}" if WAYWARD in prompt else ""
    words = [f"{word}{mark}" for word in _words(prompt)]
    begun = len(shown.split())
    return tuple(f" {word}" if place else word for place, word in enumerate(words))[begun:]


def steady_answer(prompt: str) -> str:
    """The whole answer to a prompt that is always answered alike."""
    return "".join(pieces(prompt, 1))


def flaw(prompt: str, text: str, *, whole: bool = True) -> str | None:
    """What is wrong with a text as the answer to a prompt, or as the beginning of one."""
    expected, said = _words(prompt), text.split()
    if whole and len(said) != len(expected):
        return f"{len(said)} words instead of {len(expected)}"
    if not whole:
        said = said[:-1]  # the last one may be cut
    for place, word in enumerate(said):
        found = _WORD.fullmatch(word)
        if found is None or place >= len(expected) or f"{found[1]}.{found[2]}" != expected[place]:
            return f"word {place} is {word[:40]!r}"
    return None


def older_call_after_newer(text: str) -> str | None:
    """The first word of a call after words of a later call."""
    newest = 0
    for word in text.split():
        found = _WORD.fullmatch(word)
        if found is None or found[3] is None:
            continue
        if int(found[3]) < newest:
            return word
        newest = int(found[3])
    return None


def joined(parts: Sequence[tuple[str, str]]) -> str:
    """A split answer: each part under its title."""
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in parts)


def _words(prompt: str) -> list[str]:
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    count = _FEWEST + int(digest[6:10], 16) % (_MOST - _FEWEST + 1)
    return [f"{digest[:6]}.{place}" for place in range(count)]
