"""What a parser gives back, and why it could not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from master.retrieval.chunking import Block, Draft

STATUSES: Final[Mapping[str, int]] = {"bad_media_type": 415, "too_large": 413}
"""HTTP status of a code; the others are 422."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as text. `flags` counts what was odd, such as hidden_text_characters."""

    blocks: tuple[Block, ...]
    pages: int | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Pieces:
    """A document as chunks, with what `Parsed` says of it. `cut_ms` is what cutting took."""

    drafts: tuple[Draft, ...]
    pages: int | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    title: str | None = None
    cut_ms: float = 0.0


class ParseError(Exception):
    """The content cannot be used, and trying again would not help."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status that tells a client the same."""
        return STATUSES.get(self.code, 422)
