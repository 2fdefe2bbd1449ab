"""Metrics of searches, which a master does."""

from collections.abc import Mapping
from enum import StrEnum

from prometheus_client import Counter, Histogram

from master.metrics.exposition import exemplar, registry

_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)


class Found(StrEnum):
    """How a search ended."""

    HITS = "hits"
    NOTHING = "nothing"
    DEGRADED = "degraded"
    """With hits or without, and without a model that it should have had."""
    REFUSED = "refused"
    """There is no such collection, or it has no vectors."""
    FAILED = "failed"


searches_total = Counter(
    "millrace_searches", "Searches, by how they ended.", ["outcome"], registry=registry
)
retrieval_stage_seconds = Histogram(
    "millrace_retrieval_stage_seconds",
    "What the stages of searches took: scope, embed, dense, sparse, load, rerank, total.",
    ["stage"],
    buckets=_STAGE_BUCKETS,
    registry=registry,
)
for _found in Found:
    searches_total.labels(_found.value)


def count_search(outcome: Found, took_ms: Mapping[str, float]) -> None:
    """Count a search, with what its stages took."""
    searches_total.labels(outcome.value).inc()
    trace = exemplar()
    for stage, milliseconds in took_ms.items():
        retrieval_stage_seconds.labels(stage).observe(milliseconds / 1000, trace)
