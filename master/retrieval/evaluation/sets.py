"""Retrieval sets: passages, and questions whose relevant passages are known.

A folder is read in BEIR's format, a file in SQuAD's (1.1 or 2.0).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path


class SetError(Exception):
    """The set cannot be read; the text names the file and the place in it."""

    def __init__(self, path: Path, place: str | int | None, message: str) -> None:
        where = f"line {place}" if isinstance(place, int) else place
        super().__init__(f"{path}: {where}: {message}" if where else f"{path}: {message}")


@dataclass(frozen=True)
class Passage:
    """What is searched; found as a whole."""

    id: str
    title: str
    text: str

    @property
    def content(self) -> str:
        """Title and text, as they are indexed."""
        return "\n".join(part for part in (self.title.strip(), self.text.strip()) if part)


@dataclass(frozen=True)
class Question:
    """What is asked, and the grades of the passages that should be found (each above 0)."""

    id: str
    text: str
    relevant: Mapping[str, int]


@dataclass(frozen=True)
class RetrievalSet:
    """Passages and questions; `left_out` questions have no relevant passage at all."""

    name: str
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    left_out: int = 0

    def limited(self, most: int | None) -> "RetrievalSet":
        """The set with at most so many questions, spread evenly over it; all passages stay."""
        count = len(self.questions)
        if most is None or most >= count:
            return self
        kept = tuple(self.questions[position * count // most] for position in range(most))
        return replace(self, questions=kept)
