"""Metrics of documents on their way in, which a master or a Celery worker takes."""

from prometheus_client import Counter, Histogram

from master.metrics.exposition import exemplar, registry

_STAGE_BUCKETS = (0.01, 0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 300, 900)

ingests_total = Counter(
    "millrace_ingests",
    "Attempts at documents, by how they ended.",
    ["outcome"],
    registry=registry,
)
ingest_stage_seconds = Histogram(
    "millrace_ingest_stage_seconds",
    "What the stages of ingestion took: parse, chunk, embed, store.",
    ["stage"],
    buckets=_STAGE_BUCKETS,
    registry=registry,
)


def note_ingest_stage(stage: str, milliseconds: float) -> None:
    """Note what a stage of one attempt took."""
    ingest_stage_seconds.labels(stage).observe(milliseconds / 1000, exemplar())
