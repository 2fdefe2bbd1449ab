"""Which format a body has: its first bytes decide, name and media type only choose among texts."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

from master.retrieval.parsing.parsed import ParseError


class Format(StrEnum):
    """A format that can be read; the value is its media type."""

    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    HTML = "text/html"
    MARKDOWN = "text/markdown"
    TEXT = "text/plain"
    CSV = "text/csv"
    JSON = "application/json"
    JSON_LINES = "application/x-ndjson"


SUFFIXES: Final[Mapping[str, Format]] = {
    ".pdf": Format.PDF,
    ".docx": Format.DOCX,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    ".log": Format.TEXT,
    ".rst": Format.TEXT,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".json": Format.JSON,
    ".jsonl": Format.JSON_LINES,
    ".ndjson": Format.JSON_LINES,
}
"""File names that are known; others are judged by media type and content."""

_MEDIA_TYPES: Final[Mapping[str, Format]] = {
    **{form.value: form for form in Format},
    "application/xhtml+xml": Format.HTML,
    "text/x-markdown": Format.MARKDOWN,
    "text/tab-separated-values": Format.CSV,
    "application/jsonl": Format.JSON_LINES,
    "application/x-jsonlines": Format.JSON_LINES,
}
_SAYS_NOTHING: Final = {"", "application/octet-stream", "binary/octet-stream"}
_BINARY: Final[Mapping[bytes, str]] = {
    b"\x7fELF": "a program",
    b"\xcf\xfa\xed\xfe": "a program",
    b"\x89PNG\r\n": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"\x1f\x8b": "a compressed file",
    b"BZh": "a compressed file",
    b"\xfd7zXZ\x00": "a compressed file",
    b"\x28\xb5\x2f\xfd": "a compressed file",
    b"7z\xbc\xaf\x27\x1c": "an archive",
    b"Rar!\x1a\x07": "an archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office file (save it as .docx)",
    b"{\\rtf": "rich text (save it as .docx)",
}
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_ODD: Final = bytes(sorted(set(range(32)) - set(b"\t\n\r\f\x1b")))
_PAGE_STARTS: Final = (b"<!doctype html", b"<html")
_LOOKED_AT: Final = 8192


def sniff(body: bytes, name: str, media_type: str | None = None) -> Format:
    """The format of the body; raises ParseError bad_media_type, empty_document or pdf_empty."""
    told = _told(name, media_type)
    if not body:
        code = "pdf_empty" if told is Format.PDF else "empty_document"
        raise ParseError(code, "the document has no content")
    found = _container(body, told)
    if found is not None:
        return found
    if told in {Format.PDF, Format.DOCX}:
        raise ParseError("bad_media_type", f"the content is not {told.name}, whatever its name")
    _refuse_binary(body)
    return _which_text(body, told, media_type)


def bare(media_type: str | None) -> str:
    """A media type without parameters, in lower case."""
    return (media_type or "").partition(";")[0].strip().lower()


def _told(name: str, media_type: str | None) -> Format | None:
    suffix = PurePosixPath(name.lower()).suffix
    return SUFFIXES.get(suffix) or _MEDIA_TYPES.get(bare(media_type))


def _container(body: bytes, told: Format | None) -> Format | None:
    found: Format | None = None
    if b"%PDF-" in body[:1024]:
        found = Format.PDF
    elif body.startswith(_ZIP):
        if told is not Format.DOCX and b"word/document" not in body:
            raise ParseError("bad_media_type", "of the archives, only .docx is read")
        found = Format.DOCX
    if found is None or told is None or told is found:
        return found
    if found is Format.PDF and not body.startswith(b"%PDF-"):
        return None  # a text about PDF
    raise ParseError("bad_media_type", f"the content is {found.name}, the name says {told.name}")


def _refuse_binary(body: bytes) -> None:
    head = body[:_LOOKED_AT]
    for magic, kind in _BINARY.items():
        if head.startswith(magic):
            raise ParseError("bad_media_type", f"the content is {kind}, not a document")
    if head.startswith(_BOMS):
        return
    odd = len(head) - len(head.translate(None, _ODD))
    if odd * 10 > len(head) or (head.startswith(b"MZ") and odd):
        raise ParseError("bad_media_type", "the content is binary, and not of a known format")


def _which_text(body: bytes, told: Format | None, media_type: str | None) -> Format:
    is_page = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE_STARTS)
    if is_page and (told is None or bare(media_type) == Format.HTML):
        return Format.HTML
    if told is not None:
        return told
    said = bare(media_type)
    if said in _SAYS_NOTHING or said.startswith("text/"):
        return Format.TEXT
    raise ParseError("bad_media_type", f"{said} is not read")
