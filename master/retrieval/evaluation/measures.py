"""Measures of one ranking, and the confidence in a difference. Pure.

`relevant` maps the ids that should be found to their grades; a grade of 0 or less is not relevant.
A ranking that names an id twice is counted at its first place only.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DRAWS = 2000
_SEED = 20_240_229


def ndcg(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Gain by grade, discounted by log2 of the place, over that of the best order: 0 to 1."""
    gains = [max(relevant.get(found, 0), 0) for found in _first_places(ranked, k)]
    best = sorted((grade for grade in relevant.values() if grade > 0), reverse=True)[:k]
    return _discounted(gains) / _discounted(best) if best else 0.0


def recall(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Share of the relevant that is among the first k: 0 to 1."""
    wanted = _wanted(relevant)
    return len(wanted.intersection(_first_places(ranked, k))) / len(wanted) if wanted else 0.0


def reciprocal_rank(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """1 / place of the first relevant among the first k, or 0; its mean over queries is MRR@k."""
    wanted = _wanted(relevant)
    places = enumerate(_first_places(ranked, k), start=1)
    return next((1 / place for place, found in places if found in wanted), 0.0)


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % interval that it lies in."""

    mean: float
    low: float
    high: float


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], *, draws: int = _DRAWS, seed: int = _SEED
) -> Interval:
    """Bootstrap of the mean of `ours - theirs` over the same queries; always the same for a seed.

    Raises ValueError for no queries, or for lists that do not pair up.
    """
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    if not differences:
        raise ValueError("there are no queries to compare")
    generator, size = random.Random(seed), len(differences)
    means = sorted(math.fsum(generator.choices(differences, k=size)) / size for _ in range(draws))
    cut = int(draws * 0.025)
    return Interval(math.fsum(differences) / size, means[cut], means[draws - 1 - cut])


def _first_places(ranked: Sequence[str], k: int) -> list[str]:
    return list(dict.fromkeys(ranked))[:k]


def _wanted(relevant: Mapping[str, int]) -> set[str]:
    return {found for found, grade in relevant.items() if grade > 0}


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))
