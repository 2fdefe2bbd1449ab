"""Bytes to clean text, and plain text to blocks."""

import codecs
import re
from typing import Final

from master.retrieval.chunking import Block
from master.retrieval.parsing.parsed import Parsed

_BOMS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_DROPPED: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TAG: Final = re.compile("[\U000e0000-\U000e007f]")
# Most texts have none of these, and are looked through once only.
_ANY: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\U000e0000-\U000e007f]"
)
_BEYOND_ASCII: Final = re.compile(rb"[\x80-\xff]+")
_PARAGRAPHS: Final = re.compile(r"\n[^\S\n]*\n\s*")
_NEWLINES: Final = re.compile("\r\n?|\f|\x85|\u2028|\u2029")


def decode(body: bytes, media_type: str | None = None) -> tuple[str, int]:
    """The text, and how many bytes could not be read (each is now U+FFFD).

    What says nothing of its encoding is UTF-8, or what old Windows programs write.
    """
    for bom, encoding in _BOMS:
        if body.startswith(bom):
            text = body.decode(encoding, errors="replace")
            return text, text.count("\ufffd")
    charset = _charset(media_type) or ("utf-8" if _is_utf8(body) else _guessed(body))
    text = body.decode(charset, errors="replace")
    wrong = text.count("\ufffd")
    return text, wrong - body.count("\ufffd".encode()) if wrong else 0


def clean(text: str) -> tuple[str, int, int]:
    """Text that any store takes, how many characters were cleaned, and how many were hidden.

    Tag characters are shown by nothing and read by models, so they count as hidden.
    """
    if not _ANY.search(text):
        return text, 0, 0
    text, dropped = _DROPPED.subn("", text)
    text, replaced = _SURROGATE.subn("\ufffd", text)
    text, hidden = _TAG.subn("", text)
    return _NEWLINES.sub("\n", text), dropped + replaced, hidden


def parse(body: bytes, media_type: str | None = None) -> Parsed:
    """Paragraphs of a plain text."""
    text, wrong = decode(body, media_type)
    text = _NEWLINES.sub("\n", text)
    blocks = (Block(part.strip("\n")) for part in _PARAGRAPHS.split(text))
    return Parsed(tuple(blocks), flags={"cleaned_characters": wrong})


def _guessed(body: bytes) -> str:
    """Windows-1252 where no run beyond ASCII is UTF-8, and all of them are letters of it."""
    beyond = _BEYOND_ASCII.findall(body)
    is_windows = not any(map(_is_utf8, beyond)) and _are_letters(beyond)
    return "cp1252" if is_windows else "utf-8"


def _is_utf8(run: bytes) -> bool:
    try:
        run.decode()
    except UnicodeDecodeError:
        return False
    return True


def _are_letters(runs: list[bytes]) -> bool:
    try:
        text = b"".join(runs).decode("cp1252")
    except UnicodeDecodeError:
        return False
    return text.isprintable()


def _charset(media_type: str | None) -> str | None:
    named = _CHARSET.search(media_type or "")
    if named is None:
        return None
    try:
        found = codecs.lookup(named[1])
    except LookupError:
        return None
    is_text = getattr(found, "_is_text_encoding", True)  # base64 and rot13 are "encodings" too
    return found.name if is_text else None
