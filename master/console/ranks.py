"""Which place each leg of a search gave to what was found. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from master.retrieval.search import Hit


@dataclass(frozen=True)
class Ranks:
    """Places from 1 on; None: that leg was not asked, or has it behind its candidates."""

    dense: int | None
    sparse: int | None
    fused: int
    reranked: int


def ranks(hits: Sequence[Hit], candidates: int) -> Mapping[int, Ranks]:
    """By chunk, of all that was found. `candidates`: so many each leg gave of its own.

    What a leg was only asked to score, because the other one found it, has no place of its own.
    """
    dense = _places(hits, lambda hit: hit.fused.dense)
    # A score of 0 finds nothing.
    sparse = _places(hits, lambda hit: hit.fused.sparse or None)
    fused = _places(hits, lambda hit: hit.fused.score)
    return {
        hit.chunk.id: Ranks(
            _within(dense.get(hit.chunk.id), candidates),
            _within(sparse.get(hit.chunk.id), candidates),
            fused[hit.chunk.id],
            place,
        )
        for place, hit in enumerate(hits, start=1)
    }


def _places(hits: Iterable[Hit], score: Callable[[Hit], float | None]) -> dict[int, int]:
    # As `master.retrieval.fusion` does, the id decides between equals.
    scored = [(-found, hit.chunk.id) for hit in hits if (found := score(hit)) is not None]
    return {chunk: place for place, (_, chunk) in enumerate(sorted(scored), start=1)}


def _within(place: int | None, candidates: int) -> int | None:
    return place if place is not None and place <= candidates else None
