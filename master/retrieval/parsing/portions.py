"""A document's chunks in portions that are small to send and quick to read, and not without end."""

from collections.abc import Iterable, Iterator
from typing import Final

from master.retrieval.chunking import Draft
from master.retrieval.parsing.parsed import ParseError

MOST_CHUNKS: Final = 50_000
MOST_CHARACTERS: Final = 60_000_000
"""Of all chunks of a document, with the headings above each."""
_PORTION_BYTES: Final = 256_000
_BYTES_EACH: Final = 256
"""What a chunk takes besides its text."""


class Tally:
    """The chunks of one document so far."""

    def __init__(self) -> None:
        self._chunks = 0
        self._characters = 0

    def add(self, drafts: Iterable[Draft]) -> None:
        """Count these too. Raises ParseError too_many_chunks."""
        for draft in drafts:
            self._chunks += 1
            self._characters += len(draft.text) + sum(map(len, draft.heading_path))
        if self._chunks > MOST_CHUNKS:
            raise _too_many(f"more than {MOST_CHUNKS} chunks")
        if self._characters > MOST_CHARACTERS:
            raise _too_many(f"chunks of more than {MOST_CHARACTERS} characters together")


def portions(drafts: Iterable[Draft]) -> Iterator[list[Draft]]:
    """Portions of at most 256 kB, or of one chunk. Raises ParseError too_many_chunks."""
    tally = Tally()
    portion: list[Draft] = []
    size = 0
    for draft in drafts:
        tally.add([draft])
        more = _size(draft)
        if portion and size + more > _PORTION_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(draft)
        size += more
    if portion:
        yield portion


def _size(draft: Draft) -> int:
    texts = (draft.text, *draft.heading_path)
    return _BYTES_EACH + sum(len(text.encode()) for text in texts)


def _too_many(what: str) -> ParseError:
    remedy = "divide it, or cut it into larger chunks with less overlap"
    return ParseError("too_many_chunks", f"the document makes {what}; {remedy}")
