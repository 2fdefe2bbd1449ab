"""The seam between retrieval and an embedding model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from queue_schemas.messages import ErrorKind

Vector = list[float]


@dataclass(eq=False)
class EmbeddingError(Exception):
    """No vectors. `code` is a stable word; `message` is for people, with the remedy if any."""

    kind: ErrorKind
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Embedder(Protocol):
    """One embedding model, wherever it runs."""

    @property
    def model(self) -> str:
        """Its name in the registry."""

    @property
    def max_words(self) -> int:
        """How many English words fit into its context; a safe guess until `check` was awaited."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text, in their order; any number of texts.

        Raises EmbeddingError and nothing else, except for a bug.
        """

    async def check(self) -> int:
        """Load the model; gives the dimension of its vectors. Raises EmbeddingError."""

    async def aclose(self) -> None:
        """Close connections."""
