"""CSV: each row one block of `header: value`."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from master.retrieval.chunking import Block
from master.retrieval.parsing.parsed import Parsed, ParseError
from master.retrieval.parsing.plain import decode

_DELIMITERS: Final = ",;\t|"
_FIELD_LIMIT: Final = 1_000_000
_LOOKED_AT: Final = 65_536


def parse(body: bytes, media_type: str | None = None) -> Parsed:
    """Rows of a table whose first row names the columns; raises bad_csv."""
    text, wrong = decode(body, media_type)
    csv.field_size_limit(_FIELD_LIMIT)
    text = text.replace("\x00", "")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text[:_LOOKED_AT]))
    try:
        filled = (row for row in rows if any(cell.strip() for cell in row))
        header = next(filled, [])
        table = [(len(row) != len(header), _said(header, row)) for row in filled]
    except csv.Error as error:
        raise ParseError("bad_csv", f"line {rows.line_num}: {error}") from error
    ragged = sum(odd for odd, _ in table)
    blocks = tuple(Block(said) for _, said in table) or (Block("; ".join(header)),)
    return Parsed(blocks, flags={"cleaned_characters": wrong, "ragged_rows": ragged})


def _said(header: Sequence[str], row: Sequence[str]) -> str:
    return "; ".join(_cells(header, row))


def _cells(header: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    for number, cell in enumerate(row):
        name = header[number].strip() if number < len(header) else ""
        if cell.strip():
            yield f"{name or f'column {number + 1}'}: {cell.strip()}"


def _delimiter(sample: str) -> str:
    """The one that cuts most of the first rows into equally many cells, at least two."""
    best, most = ",", (0, 0)
    for delimiter in _DELIMITERS:
        try:
            rows = list(
                islice(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter), 20)
            )
        except csv.Error:
            continue
        widths = Counter(len(row) for row in rows if len(row) > 1)
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        if (count, width) > most:
            best, most = delimiter, (count, width)
    return best
