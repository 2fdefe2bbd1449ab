"""Which passages fit a question best: BM25 over lightly stemmed words, no index, no model."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75
_WORD = re.compile(r"\w+")
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\u3040-\u30ff]")
_ENDINGS = (
    *("ungen", "ement", "ings", "ungs", "heit", "keit", "ing", "ung", "ies", "ern", "est"),
    *("es", "en", "er", "ed", "em", "ly", "e", "s", "n", "y"),
)
_SHORTEST_STEM = 4
_STOP_WORDS_TEXT = (
    "about also and are aus auf bei but can das dass dem den der des die does ein eine einen einer"
    " for from für had has have how ich into ist its mit nach not oder only sich sie sind that the"
    " their them then there these they this und used uns use using von was were what when where"
    " which who why will wie wird with you your zum zur über answer explain frage please question"
    " bitte erkläre"
)
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())


def terms(text: str) -> list[str]:
    """The words of a text as they are compared: folded, stemmed, without the commonest."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(character for character in folded if not unicodedata.combining(character))
    return [term for word in _WORD.findall(plain) for term in _terms_of(word)]


def rank(query: str, texts: Sequence[str]) -> list[float]:
    """How well each text fits the query; 0 means that they share no word."""
    wanted = set(terms(query))
    counts = [Counter(terms(text)) for text in texts]
    lengths = [sum(count.values()) for count in counts]
    mean = (sum(lengths) / len(lengths) if lengths else 0) or 1.0
    weights = {term: _rarity(term, counts) for term in wanted}
    return [
        sum(
            weight * _saturated(count[term], length / mean)
            for term, weight in weights.items()
            if term in count
        )
        for count, length in zip(counts, lengths, strict=True)
    ]


def _rarity(term: str, counts: Sequence[Counter[str]]) -> float:
    holding = sum(term in count for count in counts)
    return math.log(1 + (len(counts) - holding + 0.5) / (holding + 0.5))


def _saturated(count: int, relative_length: float) -> float:
    norm = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * relative_length)
    return count * (_SATURATION + 1) / (count + norm)


def _terms_of(word: str) -> Iterator[str]:
    if _WIDE.search(word):
        # No spaces between words there: pairs of characters do their work.
        yield from (word[place : place + 2] for place in range(max(1, len(word) - 1)))
    elif word not in _STOP_WORDS and (len(word) > 2 or word.isdigit()):
        yield _stem(word)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word
