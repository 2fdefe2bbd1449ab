"""What was measured of one set: each leg by itself, and the hybrid against the better of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from master.retrieval.evaluation.measures import (
    Interval,
    ndcg,
    paired_interval,
    recall,
    reciprocal_rank,
)
from master.retrieval.evaluation.sets import Question

K = 10


class Leg(StrEnum):
    """A way to search."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"
    RERANKED = "hybrid+rerank"


@dataclass(frozen=True)
class LegOutcome:
    """One leg's measures, each for every question in the set's order."""

    leg: Leg
    ndcg: tuple[float, ...]
    recall: tuple[float, ...]
    reciprocal_rank: tuple[float, ...]
    milliseconds: tuple[float, ...]

    @property
    def means(self) -> dict[str, float]:
        """By the measure's name, as tables and plots show them."""
        return {
            f"nDCG@{K}": fmean(self.ndcg),
            f"recall@{K}": fmean(self.recall),
            f"MRR@{K}": fmean(self.reciprocal_rank),
        }


@dataclass(frozen=True)
class Evaluation:
    """Everything measured. `model` is None where only words were searched."""

    name: str
    language: str
    model: str | None
    passages: int
    questions: int
    left_out: int
    candidates: int
    dense_weight: float
    legs: tuple[LegOutcome, ...]

    def of(self, leg: Leg) -> LegOutcome | None:
        """What was measured of a leg, None if it was not asked."""
        return next((outcome for outcome in self.legs if outcome.leg is leg), None)

    @property
    def best_leg(self) -> Leg | None:
        """The leg that is better alone, by nDCG; None if there are not two."""
        dense, sparse = self.of(Leg.DENSE), self.of(Leg.SPARSE)
        if dense is None or sparse is None:
            return None
        return Leg.DENSE if fmean(dense.ndcg) >= fmean(sparse.ndcg) else Leg.SPARSE

    def lead(self, leg: Leg) -> Interval | None:
        """nDCG of a hybrid minus that of the best leg; None if there is nothing to compare."""
        ours, best = self.of(leg), self.best_leg
        theirs = self.of(best) if best else None
        return paired_interval(ours.ndcg, theirs.ndcg) if ours and theirs else None


def judged(
    leg: Leg,
    questions: Sequence[Question],
    rankings: Sequence[Sequence[str]],
    milliseconds: Sequence[float],
) -> LegOutcome:
    """The measures of one ranking of passage ids for each question."""
    pairs = [(found, asked.relevant) for found, asked in zip(rankings, questions, strict=True)]
    return LegOutcome(
        leg,
        tuple(ndcg(found, relevant, K) for found, relevant in pairs),
        tuple(recall(found, relevant, K) for found, relevant in pairs),
        tuple(reciprocal_rank(found, relevant, K) for found, relevant in pairs),
        tuple(milliseconds),
    )
