"""Prometheus metrics of one master replica."""

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from master.fleet import FleetView
from master.rules.rule import UsedRule
from queue_schemas.messages import Completed, Failed

MEDIA_TYPE = CONTENT_TYPE_LATEST

registry = CollectorRegistry()

requests_total = Counter(
    "millrace_requests", "Requests that were accepted.", ["strategy"], registry=registry
)
endings_total = Counter(
    "millrace_request_endings", "Requests that ended, by state.", ["state"], registry=registry
)
results_total = Counter(
    "millrace_results",
    "Results that were collected; late ones did not count.",
    ["model", "outcome"],
    registry=registry,
)
tokens_total = Counter(
    "millrace_tokens", "Tokens that engines counted.", ["model", "kind"], registry=registry
)
engine_seconds_total = Counter(
    "millrace_engine_seconds", "Time that engines were held.", ["model"], registry=registry
)
first_text_seconds = Histogram(
    "millrace_first_text_seconds",
    "From accepting a request to its first text.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    registry=registry,
)
slow_consumers_total = Counter(
    "millrace_slow_consumers",
    "Streams that were cut because their client took nothing for too long.",
    registry=registry,
)
cache_total = Counter(
    "millrace_cache", "Chats that might have had an answer already.", ["found"], registry=registry
)
openwebui_ratings_total = Counter(
    "millrace_openwebui_ratings",
    "Ratings in Open WebUI that were new or had changed, by what became of them.",
    ["outcome"],
    registry=registry,
)
rules_used_total = Counter(
    "millrace_rules_used",
    "Rules that fitted accepted requests, by what became of them.",
    ["kind", "arm"],
    registry=registry,
)
_subtasks = Gauge(
    "millrace_subtasks", "Open subtasks in the database.", ["model", "state"], registry=registry
)
_workers = Gauge("millrace_workers", "Live workers.", ["model"], registry=registry)
_slots = Gauge("millrace_worker_slots", "Slots of live workers.", ["model"], registry=registry)
_streams = Gauge("millrace_open_streams", "Streams on this replica.", registry=registry)


def count_accepted(strategy: str, rules: Iterable[UsedRule]) -> None:
    """Count a request that was accepted, and the rules that fitted it."""
    requests_total.labels(strategy).inc()
    for rule in rules:
        rules_used_total.labels(rule.kind, rule.arm).inc()


def count_result(model: str, result: Completed | Failed, counted: bool) -> None:
    """Count one collected result with its bill."""
    outcome = result.status if counted else "late"
    results_total.labels(model, outcome).inc()
    tokens_total.labels(model, "prompt").inc(result.usage.prompt_tokens)
    tokens_total.labels(model, "completion").inc(result.usage.completion_tokens)
    engine_seconds_total.labels(model).inc(result.usage.engine_seconds)


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
