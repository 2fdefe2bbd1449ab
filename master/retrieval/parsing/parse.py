"""A body of any format as clean blocks. Runs in a child process (see parser_process.py)."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from master.retrieval.chunking import Block
from master.retrieval.parsing import markdown, pdf, plain, records, table, web, word
from master.retrieval.parsing.formats import Format, sniff
from master.retrieval.parsing.parsed import Parsed, ParseError

MOST_CHARACTERS: Final = 100_000_000
_LONGEST_HEADING: Final = 1000
"""Characters, as every chunk below it repeats it; whole, it is a block too."""

PARSERS: Final[Mapping[Format, Callable[[bytes, str | None], Parsed]]] = {
    Format.PDF: pdf.parse,
    Format.DOCX: word.parse,
    Format.HTML: web.parse,
    Format.MARKDOWN: markdown.parse,
    Format.TEXT: plain.parse,
    Format.CSV: table.parse,
    Format.JSON: records.parse,
    Format.JSON_LINES: records.parse_lines,
}


def parse(body: bytes, name: str, media_type: str | None = None) -> Parsed:
    """Raises ParseError."""
    found = PARSERS[sniff(body, name, media_type)](body, media_type)
    if sum(len(block.text) for block in found.blocks) > MOST_CHARACTERS:
        raise ParseError("too_large", f"more than {MOST_CHARACTERS} characters of text")
    cleaned = _cleaned(found)
    if not cleaned.blocks:
        raise ParseError("empty_document", "the document has no text")
    return cleaned


def _cleaned(found: Parsed) -> Parsed:
    """Headings and titles are cleaned without counting: their text is in blocks too."""
    paths = {
        path: tuple(plain.clean(heading)[0][:_LONGEST_HEADING] for heading in path)
        for path in {block.heading_path for block in found.blocks}
    }
    counts = Counter(found.flags)
    blocks: list[Block] = []
    for block in found.blocks:
        text, odd, hidden = plain.clean(block.text)
        counts["cleaned_characters"] += odd
        counts["hidden_text_characters"] += hidden
        if text.strip():
            blocks.append(Block(text, paths[block.heading_path], block.page))
    title = plain.clean(found.title)[0].strip()[:_LONGEST_HEADING] if found.title else ""
    flags = {name: count for name, count in counts.items() if count}
    return replace(found, blocks=tuple(blocks), title=title or None, flags=flags)
