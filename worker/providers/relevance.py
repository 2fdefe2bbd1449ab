"""Which quotes answer a question. Pure: BM25 over the given quotes, then a choice among the best.

There is no index behind it: the words' rarity is counted within the passages at hand, which the
retrieval has already chosen.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Final

from worker.providers.quotes import Kind, Quote

MOST_QUOTES: Final = 4
MOST_CHARACTERS: Final = 1400
LEAST_COVERAGE: Final = 0.4
"""Share of the question's weight that the best quote must cover, or nothing answers it."""
LEAST_OF_BEST: Final = 0.5
"""A further quote must score at least this share of the best one."""
SAME: Final = 0.7
"""Two quotes that share this much of the shorter one's words say the same."""

_K1: Final = 1.2
_B: Final = 0.6
_HEADING_WEIGHT: Final = 0.6
_DEFINITION: Final = 2.0
"""How much more a piece counts that begins with a word of the question and says what it is."""
_DEFINES: Final = re.compile(
    r"\W*(?:(?:a|an|the)\s+)?(\w+)\W*?(?::|\s(?:is|are|means)\b)", re.IGNORECASE
)
_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W\d_]+)?")
_IDENTIFIER: Final = re.compile(r"\w+(?:[-_.:/]\w+)+")
_STOP_WORDS: Final = (
    "a about after all also am an and any are as at be because been before being between both but "
    "by can could did do does doing done down each explain for from further give had has have "
    "having he her here him his how i if in into is it its just like list make me more most my no "
    "nor not of off on once only or other our out over own please same say says she should so some "
    "such tell than that the their them then there these they this those through to too under "
    "until up us very was we were what when where which while who whom why will with would you "
    "your der die das den dem des ein eine einen einem einer und oder ist sind war wie was wer wo "
    "wann warum welche welcher welches mit von vom zu zum zur im in am an auf aus bei bitte es er "
    "sie wir ihr ich du nicht auch für über le la les un une des et ou est sont que qui quoi quel "
    "quelle comment pourquoi dans pour par avec sur "
    "best happen happened happens mean means many much show way work works"
)
_STOP: Final = frozenset(_STOP_WORDS.split())
_LIGHT: Final[Sequence[tuple[str, str]]] = (
    ("abilities", "ab"),
    ("ability", "ab"),
    ("able", "ab"),
    ("ies", "y"),
    ("sses", "ss"),
    ("ss", "ss"),
    ("ations", "at"),
    ("ation", "at"),
    ("ings", ""),
    ("ing", ""),
    ("edly", ""),
    ("ed", ""),
    ("ely", ""),
    ("ly", ""),
    ("es", ""),
    ("s", ""),
    ("e", ""),
)


@dataclass(frozen=True)
class _Scored:
    quote: Quote
    score: float
    share: float
    """Of the question's weight, how much it covers."""
    covered: frozenset[str]
    terms: frozenset[str]


def best_quotes(question: str, candidates: Sequence[Quote]) -> list[Quote]:
    """The quotes to answer with, in reading order; empty when none answers."""
    asked = frozenset(terms(question))
    scored = _score(asked, candidates) if asked else []
    return _reading_order(_choose(scored))


def terms(text: str) -> list[str]:
    """The words that carry meaning, stemmed; names like `build-and-run.ps1` also as a whole."""
    lowered = text.lower()
    words = [stem(word) for word in _WORD.findall(lowered) if word not in _STOP]
    return words + [name.strip("._-:/") for name in _IDENTIFIER.findall(lowered)]


def stem(word: str) -> str:
    """Strip the commonest endings; plural, tense and `-ation` meet at one form."""
    for ending, instead in _LIGHT:
        if word.endswith(ending) and len(word) - len(ending) + len(instead) >= 3:
            word = word[: len(word) - len(ending)] + instead
            break
    # stopping -> stopp -> stop, but not small or class
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word.replace("\u2019", "'").removesuffix("'")


def _weights(asked: frozenset[str], candidates: Sequence[Quote]) -> dict[str, float]:
    """The rarer a word is among the quotes, the more it says.

    A word that none of them has says no more than the others do on average: people ask in words
    of their own.
    """
    total = len(candidates)
    seen: Counter[str] = Counter()
    for quote in candidates:
        seen.update(asked.intersection(terms(f"{quote.text} {quote.heading}")))
    known = {t: log(1 + (total - n + 0.5) / (n + 0.5)) for t, n in seen.items()}
    average = sum(known.values()) / len(known) if known else 1.0
    return {term: known.get(term, average) for term in asked}


def _score(asked: frozenset[str], candidates: Sequence[Quote]) -> list[_Scored]:
    weights = _weights(asked, candidates)
    bags = [Counter(terms(quote.text)) for quote in candidates]
    average = sum(bag.total() for bag in bags) / len(bags) if bags else 1.0
    return [
        scored
        for quote, bag in zip(candidates, bags, strict=True)
        if (scored := _score_one(quote, bag, weights, average or 1.0)).score > 0
    ]


def _score_one(
    quote: Quote, bag: Counter[str], weights: dict[str, float], average: float
) -> _Scored:
    heading = frozenset(terms(quote.heading))
    length = 1 - _B + _B * bag.total() / average
    score, share, covered = 0.0, 0.0, set()
    for term, weight in weights.items():
        count = bag[term]
        if count:
            score += weight * count * (_K1 + 1) / (count + _K1 * length)
            share += weight
            covered.add(term)
        elif term in heading:
            score += weight * _HEADING_WEIGHT
            share += weight * _HEADING_WEIGHT
    if not covered:
        score = 0.0
    share /= sum(weights.values())
    # Two of the question's words together say much more than one of them twice.
    score *= (0.3 + share) * _shape(quote, bag)
    if (begins := _DEFINES.match(quote.text)) and stem(begins[1].lower()) in covered:
        score *= _DEFINITION
    return _Scored(quote, score, share, frozenset(covered), frozenset(bag))


def _shape(quote: Quote, bag: Counter[str]) -> float:
    """How well a piece reads on its own."""
    factor = 1.0
    if bag.total() < 4:
        factor *= 0.5
    if quote.kind is not Kind.CODE and quote.text.rstrip().endswith((":", "?")):
        factor *= 0.6
    if quote.kind is Kind.CODE:
        factor *= 0.7
    if len(quote.text) > MOST_CHARACTERS // 2:
        factor *= 0.7
    return factor


def _choose(scored: Sequence[_Scored]) -> list[_Scored]:
    ranked = sorted(scored, key=lambda one: (-one.score, one.quote.position))
    if not ranked or ranked[0].share < LEAST_COVERAGE:
        return []
    chosen: list[_Scored] = []
    length = 0
    for one in ranked:
        news = one.covered - frozenset().union(*(other.covered for other in chosen))
        floor = LEAST_OF_BEST * (0.7 if news else 1.0) * ranked[0].score
        length += len(one.quote.text)
        if len(chosen) == MOST_QUOTES or one.score < floor:
            continue
        if chosen and (length > MOST_CHARACTERS or any(_same(one, other) for other in chosen)):
            length -= len(one.quote.text)
            continue
        chosen.append(one)
    return chosen


def _same(one: _Scored, other: _Scored) -> bool:
    shorter = min(len(one.terms), len(other.terms)) or 1
    return len(one.terms & other.terms) / shorter >= SAME


def _reading_order(chosen: Sequence[_Scored]) -> list[Quote]:
    """The best passage first, and each passage in the order it was written."""
    best: dict[int, float] = {}
    for one in chosen:
        best[one.quote.passage] = max(best.get(one.quote.passage, 0.0), one.score)
    return sorted((one.quote for one in chosen), key=lambda q: (-best[q.passage], q.position))
