"""Two legs of candidates as one ranking. Pure.

A convex combination of scores instead of one of ranks: how much better the first hit of a leg is
than its second says something. Both scores are put on a scale that does not depend on the other
candidates, so neither their number nor a bad one among them moves the rest; and every candidate is
scored by both legs: what a leg did not return is not what it gives nothing. What was compared
before this was chosen is in docs/retrieval-evaluation.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DENSE_WEIGHT: Final = 0.7
"""The rest is the sparse leg's."""
VECTOR_WEIGHT: Final = 0.6
"""In the second ranking; the rest is the reranker's."""
_K1: Final = 1.2


@dataclass(frozen=True)
class Fused:
    """A candidate with its scores."""

    chunk: int
    score: float
    """0 to 1."""
    dense: float | None
    """Cosine similarity; None where the leg was not asked, or the chunk has no vector."""
    sparse: float | None
    """BM25; None where the leg was not asked."""


def fuse(
    dense: Mapping[int, float] | None,
    sparse: Mapping[int, float] | None,
    dense_weight: float,
    chunk_count: int,
) -> list[Fused]:
    """The candidates, best first. None: that leg was not asked, and the other one decides.

    `chunk_count` is the collection's: BM25 scores grow with it.
    """
    if sparse is None or dense is None:
        dense_weight = 1.0 if sparse is None else 0.0
    half = _one_rare_word(chunk_count)
    fused = []
    for chunk in dict.fromkeys([*(dense or ()), *(sparse or ())]):
        cosine = None if dense is None else dense.get(chunk)
        words = None if sparse is None else sparse.get(chunk, 0.0)
        near = min(1.0, max(0.0, cosine or 0.0))
        said = (words or 0.0) / ((words or 0.0) + half)
        score = dense_weight * near + (1 - dense_weight) * said
        fused.append(Fused(chunk, score, cosine, words))
    # The id decides between equals, so that the same question has the same answer.
    return sorted(fused, key=lambda one: (-one.score, one.chunk))


def _one_rare_word(chunk_count: int) -> float:
    """The most that BM25 gives for one word that a single chunk has: half of the scale's 1."""
    return math.log(1 + (max(1, chunk_count) - 0.5) / 1.5) * (_K1 + 1)


def rerank_score(fused: float, judged: float, vector_weight: float = VECTOR_WEIGHT) -> float:
    """The score of the second ranking; both are 0 to 1."""
    return vector_weight * fused + (1 - vector_weight) * judged
