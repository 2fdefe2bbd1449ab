"""Marking text that a model is to read and not to obey."""

import hashlib
import re
from collections.abc import Iterable

_MARK = re.compile(r"\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")


def quoted(name: str, pieces: Iterable[tuple[str, str]]) -> str:
    """The pieces, each under its label, between two marks that no piece can contain.

    The mark is made from the content, so it is the same every time and cannot be written into
    the content by whoever wrote that.
    """
    body = "\n\n".join(f"{label}\n{text.strip()}".strip() for label, text in pieces)
    mark = f"{name}-{_unused_word(body)}"
    return f"<{mark}>\n{body}\n</{mark}>"


def unmarked(text: str) -> str:
    """The text with `(2)` for `[2]`: what a document cites must not pass for a citation of ours."""
    return _MARK.sub(r"(\1)", text)


def _unused_word(body: str) -> str:
    word = ""
    while not word or word in body:
        word = hashlib.sha256(f"{word}{body}".encode(errors="replace")).hexdigest()[:8]
    return word
