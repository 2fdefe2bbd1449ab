"""The registry of a process, and how it is shown: as text, or as OpenMetrics with exemplars."""

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import (
    CONTENT_TYPE_PLAIN_0_0_4,
    choose_encoder,
    generate_latest,
)
from prometheus_client.registry import Collector

from bus import tracing

registry = CollectorRegistry()
# A third of all lines, and no dashboard asks when a count began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own

_SHORT = (0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5)
LATENCY_BUCKETS = (*_SHORT, 1, 2.5, 5, 10, 30, 60, 120)
"""Of what somebody waits for at a screen."""
QUEUE_BUCKETS = (0.001, *_SHORT, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
"""Of a wait that is over at once where there are enough workers."""
STOP_BUCKETS = (0.008, 0.015, 0.03, 0.06, 0.1, 0.2, 0.5, 1, 2.5, 10)
LONG_BUCKETS = (0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
"""Of what takes as long as a model takes."""


def render(metrics: Collector, accept: str) -> tuple[bytes, str]:
    """What Prometheus scrapes, and its media type, by what the scraper accepts."""
    try:
        encode, media_type = choose_encoder(accept)
        return encode(metrics), media_type
    except (TypeError, ValueError):  # a version that is no number
        return generate_latest(metrics), CONTENT_TYPE_PLAIN_0_0_4


def exemplar(trace: str | None = None) -> dict[str, str] | None:
    """A trace, to be found again from a histogram. None: the one in force; empty: there is none."""
    trace = tracing.current_trace_id() if trace is None else trace
    return {"trace_id": trace} if trace else None
