"""What embedders share: many texts in bounded batches, and tokens counted as words."""

from collections.abc import Awaitable, Callable, Sequence

from master.retrieval.embedders.protocol import Vector
from master.retrieval.embedders.vectors import checked


async def in_batches(
    texts: Sequence[str], size: int, embed: Callable[[Sequence[str]], Awaitable[object]]
) -> list[Vector]:
    """The checked vectors of all texts, asked for at most `size` at a time."""
    found: list[Vector] = []
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        dimension = len(found[0]) if found else None
        found += checked(await embed(batch), len(batch), dimension)
    return found


def words_of(tokens: int) -> int:
    """How many English words are about so many tokens."""
    return max(1, tokens * 3 // 4)
