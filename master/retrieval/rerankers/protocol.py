"""The seam between retrieval and a reranker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from queue_schemas.messages import ErrorKind


@dataclass(eq=False)
class RerankError(Exception):
    """No scores. `code` is a stable word; `message` is for people."""

    kind: ErrorKind
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Reranker(Protocol):
    """Scores passages against a question, each by itself."""

    @property
    def model(self) -> str:
        """Its name, as `/v1/rerank` shows it."""

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """One finite score for each text, in their order; larger is better, 0 to 1.

        Raises RerankError and nothing else, except for a bug.
        """

    async def aclose(self) -> None:
        """Close connections."""
