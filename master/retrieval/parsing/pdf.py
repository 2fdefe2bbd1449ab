"""PDF: the text of each page, as its own block."""

import io
from dataclasses import dataclass
from typing import Final

from pypdf import PageObject, PdfReader
from pypdf.errors import DependencyError, LimitReachedError
from pypdf.generic import DictionaryObject

from master.retrieval.chunking import Block
from master.retrieval.parsing.hidden_ink import Ink
from master.retrieval.parsing.parsed import Parsed, ParseError

MOST_PAGES: Final = 2_000


def parse(body: bytes, media_type: str | None = None) -> Parsed:
    """Raises pdf_encrypted, pdf_empty, pdf_truncated, pdf_too_large, no_text."""
    try:
        return _parsed(_opened(body))
    except (ParseError, MemoryError):
        raise
    except DependencyError as error:
        raise ParseError("pdf_encrypted", "the file is encrypted with AES") from error
    except LimitReachedError as error:
        raise ParseError("pdf_too_large", str(error)) from error
    except RecursionError as error:
        raise ParseError("pdf_too_large", "the structure is nested too deeply") from error
    except Exception as error:  # of a damaged file, pypdf raises whatever it meets
        said = f"the file is damaged or cut short: {type(error).__name__}: {error}"
        raise ParseError("pdf_truncated", said[:500]) from error


def _opened(body: bytes) -> PdfReader:
    reader = PdfReader(io.BytesIO(body))
    # Many files are encrypted only against printing: those open with no password.
    if reader.is_encrypted and not reader.decrypt(""):
        raise ParseError("pdf_encrypted", "the file needs a password")
    return reader


@dataclass(frozen=True)
class _Page:
    text: str
    hidden: int = 0
    scanned: int = 0
    has_image: bool = False


def _parsed(reader: PdfReader) -> Parsed:
    count = len(reader.pages)
    if count == 0:
        raise ParseError("pdf_empty", "the file has no pages")
    if count > MOST_PAGES:
        raise ParseError("pdf_too_large", f"{count} pages; at most {MOST_PAGES} are read")
    pages = [_read(page) for page in reader.pages]
    blocks = tuple(
        Block(page.text, page=number) for number, page in enumerate(pages, 1) if page.text
    )
    if not blocks:
        raise _no_text(pages)
    flags = {
        "hidden_text_characters": sum(page.hidden for page in pages),
        "scanned_text_characters": sum(page.scanned for page in pages),
        "pages_without_text": count - len(blocks),
    }
    return Parsed(blocks, count, flags, _title(reader))


def _read(page: PageObject) -> _Page:
    resources = page.get("/Resources")
    found = resources.get_object() if resources is not None else None
    ink = Ink(found if isinstance(found, DictionaryObject) else DictionaryObject())
    text = page.extract_text(visitor_operand_before=ink.watch).strip()
    if not text and ink.has_image and ink.invisible:
        # A scan with its recognised text behind the picture: that is what a reader sees.
        text = page.extract_text().strip()
        return _Page(text, ink.hidden - ink.invisible, ink.invisible, ink.has_image)
    return _Page(text, ink.hidden, 0, ink.has_image)


def _no_text(pages: list[_Page]) -> ParseError:
    if any(page.hidden for page in pages):
        return ParseError("no_text", "the pages have hidden text only")
    if any(page.has_image for page in pages):
        return ParseError("no_text", "the pages are images; recognise their text first")
    return ParseError("no_text", "the pages have no text")


def _title(reader: PdfReader) -> str | None:
    title = reader.metadata.title if reader.metadata else None
    return str(title).strip() or None if title else None
