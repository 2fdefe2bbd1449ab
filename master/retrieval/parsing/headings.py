"""The headings above a place in a document."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from master.retrieval.chunking import Block


@dataclass
class Headings:
    """The open headings, outermost first. A heading is a block too: its words are text."""

    first: str | None = None
    open: list[tuple[int, str]] = field(default_factory=list)

    @property
    def path(self) -> tuple[str, ...]:
        """The headings' texts."""
        return tuple(text for _, text in self.open)

    def enter(self, level: int, text: str) -> Iterator[Block]:
        """Open a heading, which ends those of its level and below."""
        said = " ".join(text.split())
        if not said:
            return
        self.first = self.first or said
        self.open = [entry for entry in self.open if entry[0] < level]
        self.open.append((level, said))
        yield Block(said, self.path)
