"""Prometheus metrics of one master replica."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from master.fleet import FleetView

MEDIA_TYPE = CONTENT_TYPE_LATEST

registry = CollectorRegistry()

requests_total = Counter(
    "millrace_requests", "Requests that were accepted.", ["strategy"], registry=registry
)
endings_total = Counter(
    "millrace_request_endings", "Requests that ended, by state.", ["state"], registry=registry
)
results_total = Counter(
    "millrace_results", "Results that were collected.", ["outcome"], registry=registry
)
first_text_seconds = Histogram(
    "millrace_first_text_seconds",
    "From accepting a request to its first text.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    registry=registry,
)
_subtasks = Gauge(
    "millrace_subtasks", "Open subtasks in the database.", ["model", "state"], registry=registry
)
_workers = Gauge("millrace_workers", "Live workers.", ["model"], registry=registry)
_slots = Gauge("millrace_worker_slots", "Slots of live workers.", ["model"], registry=registry)
_streams = Gauge("millrace_open_streams", "Streams on this replica.", registry=registry)


def render(view: FleetView, open_streams: int) -> bytes:
    """The text that Prometheus scrapes."""
    for gauge in (_subtasks, _workers, _slots):
        gauge.clear()
    for model, load in view.loads.items():
        for state in ("ready", "queued", "running"):
            _subtasks.labels(model, state).set(getattr(load, state))
    for worker in view.workers:
        _workers.labels(worker["model"]).inc()
        _slots.labels(worker["model"]).inc(worker["slots"])
    _streams.set(open_streams)
    return generate_latest(registry)
