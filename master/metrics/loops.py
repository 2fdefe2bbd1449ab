"""Metrics of the loops of a process."""

from enum import StrEnum

from prometheus_client import Counter

from master.metrics.exposition import registry


class Loop(StrEnum):
    """What a process does again and again; a round that fails is logged, and the next one comes."""

    COLLECT = "collect"
    DISPATCH = "dispatch"
    FLEET = "fleet"
    INGEST = "ingest"
    INTAKE = "intake"
    LEARNING = "learning"
    MEMORIES = "memories"
    OPENWEBUI = "openwebui"
    ROUTING = "routing"
    STREAMS = "streams"
    SWEEP = "sweep"


loop_failures_total = Counter(
    "millrace_loop_failures",
    "Rounds of a loop that failed, because something was away or because of a bug.",
    ["loop"],
    registry=registry,
)
for _loop in Loop:
    loop_failures_total.labels(_loop.value)


def count_failure(loop: Loop) -> None:
    """Count a round that failed."""
    loop_failures_total.labels(loop.value).inc()
