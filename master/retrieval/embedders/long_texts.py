"""Texts of more tokens than a model takes: by their pieces, or shortened.

Words are an estimate: part numbers, tables and code have many times the tokens of prose.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from master.retrieval.embedders.engine import TOO_LONG
from master.retrieval.embedders.protocol import Embedder, EmbeddingError, Vector
from master.retrieval.embedders.vectors import checked

_SHORTEST: Final = 16
"""Characters; an engine to which less is too long would find anything too long."""
_SHORTENINGS: Final = 4
_CANCELLED: Final = 1e-9
"""Of opposite vectors no more than this is left, and it points nowhere."""

_Embed = Callable[[str], Awaitable[Vector]]
_Piece = tuple[int, Vector]
"""Its length in characters, and its vector."""


async def embed_all(embedder: Embedder, texts: Sequence[str], prefix: str = "") -> list[Vector]:
    """A checked vector for each text, however long it is. Raises EmbeddingError."""
    try:
        return checked(await embedder.embed([prefix + text for text in texts]), len(texts))
    except EmbeddingError as error:
        if not is_too_long(error):
            raise

    async def embed(text: str) -> Vector:
        return checked(await embedder.embed([prefix + text]), 1)[0]

    return checked([joined(await _pieces(embed, text)) for text in texts], len(texts))


async def embed_beginning(embedder: Embedder, text: str, prefix: str = "") -> Vector:
    """The vector of as much of a text as the model takes. Raises EmbeddingError."""
    shown = beginning(text, embedder.max_words)
    for _ in range(_SHORTENINGS):
        try:
            return (await embedder.embed([prefix + shown]))[0]
        except EmbeddingError as error:
            if not is_too_long(error):
                raise
            shown = halves(shown)[0]
    return (await embedder.embed([prefix + shown]))[0]


def is_too_long(error: EmbeddingError) -> bool:
    """Whether the same text would be taken if it were shorter."""
    return (error.kind, error.code) == TOO_LONG


def beginning(text: str, most_words: int) -> str:
    """So many words, and of scripts without spaces, or of long words, as many characters."""
    return " ".join(text.split()[:most_words])[: most_words * 6]


def halves(text: str) -> tuple[str, str]:
    """Both halves of a text, at the space nearest to its middle, or within a word."""
    middle = len(text) // 2
    spaces = (i for i in range(len(text) // 4, len(text) * 3 // 4) if text[i].isspace())
    at = min(spaces, key=lambda i: abs(i - middle), default=middle)
    return text[:at].rstrip(), text[at:].lstrip()


def joined(pieces: Sequence[_Piece]) -> Vector:
    """The mean of the pieces' vectors by their lengths, of length 1; one piece as it is."""
    if len(pieces) == 1:
        return pieces[0][1]
    shares = [length / sum(length for length, _ in pieces) for length, _ in pieces]
    vectors = checked([vector for _, vector in pieces], len(pieces))
    mean = [
        math.fsum(share * number for share, number in zip(shares, numbers, strict=True))
        for numbers in zip(*vectors, strict=True)
    ]
    size = math.hypot(*mean)
    if size <= _CANCELLED * max(math.hypot(*vector) for vector in vectors):
        return max(pieces, key=lambda piece: piece[0])[1]
    return [number / size for number in mean]


async def _pieces(embed: _Embed, text: str) -> list[_Piece]:
    try:
        return [(len(text), await embed(text))]
    except EmbeddingError as error:
        if not is_too_long(error) or len(text) < 2 * _SHORTEST:
            raise
    return [piece for half in halves(text) if half for piece in await _pieces(embed, half)]
