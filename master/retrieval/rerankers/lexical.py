"""Reranking without a model: the share of words that question and passage have in common."""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

NAME: Final = "millrace/lexical"

_WORD: Final = re.compile(r"\w+")
_QUICK_CHARACTERS: Final = 200_000


def words(text: str) -> frozenset[str]:
    """The different words of a text, in lower case."""
    return frozenset(_WORD.findall(text.lower()))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Common words among all words, 0 to 1; 0 when neither has any."""
    union = len(one | other)
    return len(one & other) / union if union else 0.0


class Lexical:
    """Always there, and instant."""

    model = NAME

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Score every text; megabytes of it in a thread, so that the event loop goes on."""
        if sum(map(len, texts)) > _QUICK_CHARACTERS:
            return await asyncio.to_thread(_scores, query, texts)
        return _scores(query, texts)

    async def aclose(self) -> None:
        """Nothing is open."""


def _scores(query: str, texts: Sequence[str]) -> list[float]:
    asked = words(query)
    return [jaccard(asked, words(text)) for text in texts]
