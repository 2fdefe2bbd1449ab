"""DOCX: paragraphs under their headings, tables row by row. Pages are not known to the file."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from docx import Document
from docx.document import Document as Opened
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from docx.table import Table
from docx.text.paragraph import Paragraph
from docx.text.run import Run

from master.retrieval.chunking import Block
from master.retrieval.parsing import archive
from master.retrieval.parsing.headings import Headings
from master.retrieval.parsing.parsed import Parsed, ParseError

_HEADING: Final = re.compile(r"heading (\d)", re.IGNORECASE)
_WRAPPERS: Final = {qn(name) for name in ("w:sdt", "w:sdtContent", "w:customXml", "w:ins")}
_NOT_WORD: Final = "the archive is not a Word document"
_WHITE: Final = "FFFFFF"
_READABLE_POINTS: Final = 2
# A text box comes twice, for new and for old readers.
_RUNS: Final = './/w:r[not(ancestor::*[local-name()="Fallback"])]'


def parse(body: bytes, media_type: str | None = None) -> Parsed:
    """Blocks of a document; raises zip_bomb, zip_unsafe, docx_damaged, bad_media_type."""
    archive.check(body)
    if b"[Content_Types].xml" not in body:
        raise ParseError("bad_media_type", _NOT_WORD)
    try:
        document = Document(io.BytesIO(body))
        reading = _Reading()
        blocks = tuple(reading.blocks(document))
        title = document.core_properties.title or reading.headings.first
    except ValueError as error:  # an archive of something else
        raise ParseError("bad_media_type", _NOT_WORD) from error
    except (OpcError, SyntaxError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise ParseError("docx_damaged", "the document cannot be read") from error
    return Parsed(blocks, flags={"hidden_text_characters": reading.hidden}, title=title or None)


@dataclass
class _Reading:
    headings: Headings = field(default_factory=Headings)
    hidden: int = 0

    def blocks(self, document: Opened) -> Iterator[Block]:
        """What the body holds, in order."""
        for element in _content(document.element.body):
            if element.tag == qn("w:tbl"):
                yield from self._table(Table(element, document))
                continue
            item = Paragraph(element, document)
            level = _level(item)
            text = self._visible(item)
            if level:
                yield from self.headings.enter(level, text)
            elif text.strip():
                yield Block(text, self.headings.path)

    def _table(self, table: Table) -> Iterator[Block]:
        rows = (" | ".join(self._cells(row)) for row in _rows(table))
        text = "\n".join(row for row in rows if row.strip(" |"))
        if text:
            yield Block(text, self.headings.path)

    def _cells(self, cells: list[list[Paragraph]]) -> Iterator[str]:
        for paragraphs in cells:
            yield " ".join(" ".join(self._visible(part) for part in paragraphs).split())

    def _visible(self, paragraph: Paragraph) -> str:
        shown: list[str] = []
        for element in paragraph._p.xpath(_RUNS):  # noqa: SLF001 - links and insertions too
            run = Run(element, paragraph)
            if _is_hidden(run):
                self.hidden += len(run.text.strip())
            else:
                shown.append(run.text)
        return "".join(shown)


def _content(parent: Any) -> Iterator[Any]:
    """Paragraphs and tables, also those in content controls."""
    for element in parent:
        if element.tag in {qn("w:p"), qn("w:tbl")}:
            yield element
        elif element.tag in _WRAPPERS:
            yield from _content(element)


def _rows(table: Table) -> Iterator[list[list[Paragraph]]]:
    """Paragraphs by cell, those of tables inside included; merged cells come once."""
    for row in table._tbl.tr_lst:  # noqa: SLF001 - `rows` asks for the grid at every cell
        yield [[Paragraph(part, table) for part in cell.iter(qn("w:p"))] for cell in row.tc_lst]


def _level(paragraph: Paragraph) -> int:
    style = paragraph.style
    name = (style.name or "") if style is not None else ""
    found = _HEADING.match(name)
    return int(found[1]) if found else int(name == "Title")


def _is_hidden(run: Run) -> bool:
    font = run.font
    if font.hidden:
        return True
    if font.size is not None and font.size.pt < _READABLE_POINTS:
        return True
    return font.color is not None and str(font.color.rgb) == _WHITE and not _is_shaded(run)


def _is_shaded(run: Run) -> bool:
    """White letters are read on a colour: of the run, its paragraph or its cell."""
    around = [run._r, *run._r.iterancestors(qn("w:p"), qn("w:tc"))]  # noqa: SLF001 - no public way
    return any(
        found.get(qn("w:fill"), "auto").upper() not in {"AUTO", _WHITE}
        for element in around
        for found in element.iterfind(f"./*/{qn('w:shd')}")
    )
