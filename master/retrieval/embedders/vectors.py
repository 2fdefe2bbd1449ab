"""What every vector must be before it is stored or compared."""

import math
from collections.abc import Sequence
from typing import Final

from master.retrieval.embedders.protocol import EmbeddingError, Vector
from queue_schemas.messages import ErrorKind

BAD_EMBEDDING: Final = "bad_embedding"

# The database computes with float32: squares beyond these become zero or infinite there.
_SHORTEST: Final = 1e-18
_LONGEST: Final = 1e18


def checked(vectors: object, count: int, dimension: int | None = None) -> list[Vector]:
    """The vectors as an engine gave them, if there are `count` usable ones of one dimension.

    Raises EmbeddingError (permanent, `bad_embedding`) for anything else: another count or
    dimension, no list of numbers, NaN, infinity, or nothing but zeros.
    """
    if not isinstance(vectors, list) or len(vectors) != count:
        given = len(vectors) if isinstance(vectors, list) else "no list"
        raise _bad(f"{count} texts were sent, and {given} vectors came back")
    for position, vector in enumerate(vectors):
        if reason := _wrong(vector, dimension):
            raise _bad(f"vector {position} {reason}")
        dimension = len(vector)
    return vectors


def _wrong(vector: object, dimension: int | None) -> str | None:
    if not isinstance(vector, list) or not vector:
        return "is not a list of numbers, or is empty"
    if any(type(value) not in (float, int) for value in vector):
        return "is not a list of numbers"
    if dimension is not None and len(vector) != dimension:
        return f"has {len(vector)} dimensions instead of {dimension}"
    return _useless(vector)


def _useless(vector: Sequence[float]) -> str | None:
    try:
        length = math.hypot(*vector)
    except OverflowError:  # an integer that no float can hold
        length = math.inf
    if not math.isfinite(length):
        return "has values that are not finite"
    if not _SHORTEST <= length <= _LONGEST:
        return f"has the length {length:g}, which leaves it without a direction"
    return None


def _bad(message: str) -> EmbeddingError:
    return EmbeddingError(ErrorKind.PERMANENT, BAD_EMBEDDING, message)
