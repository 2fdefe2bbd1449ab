"""Prometheus metrics of an embedder process."""

from collections.abc import Iterable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

registry = CollectorRegistry()


class Call(StrEnum):
    """What an embedder is asked for."""

    EMBED = "embed"
    """Vectors of texts."""
    RERANK = "rerank"
    """An order of texts."""


class Answer(StrEnum):
    """What became of a request for vectors or for an order."""

    ANSWERED = "answered"
    LOADING = "loading"
    """The model is not there yet."""
    BUSY = "busy"
    """Too much waits."""
    REFUSED = "refused"
    """Too many texts, or too long ones."""
    FAILED = "failed"


texts_total = Counter(
    "millrace_embedder_texts", "Texts that were turned into vectors.", registry=registry
)
requests_total = Counter(
    "millrace_embedder_requests",
    "Readable requests for vectors and for an order of texts, by what became of them.",
    ["call", "outcome"],
    registry=registry,
)
seconds = Histogram(
    "millrace_embedder_seconds",
    "From a readable request to its vectors, or to its order.",
    ["call"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
    registry=registry,
)
batch_texts = Histogram(
    "millrace_embedder_batch_texts",
    "Texts that were run through the model together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    registry=registry,
)

for _call in Call:
    seconds.labels(_call.value)
    for _answer in Answer:
        requests_total.labels(_call.value, _answer.value)


class Embedder(Collector):
    """All metrics of one embedder."""

    def __init__(self, *, ready: bool) -> None:
        self._ready = Gauge(
            "millrace_embedder_ready", "Whether the model is loaded.", registry=None
        )
        self._ready.set(ready)

    def collect(self) -> Iterable[Metric]:
        """What was counted, and how it stands."""
        yield from registry.collect()
        yield from self.own()

    def own(self) -> Iterable[Metric]:
        """How it stands."""
        return self._ready.collect()


def count_answer(call: Call, took_seconds: float) -> None:
    """Count a request that got what it asked for."""
    requests_total.labels(call.value, Answer.ANSWERED.value).inc()
    seconds.labels(call.value).observe(took_seconds)


def count_refusal(call: Call, status: int, *, ready: bool) -> None:
    """Count a request that got nothing; `status` is that of its answer."""
    outcome = Answer.FAILED
    if status == 413:
        outcome = Answer.REFUSED
    elif status == 503:
        outcome = Answer.BUSY if ready else Answer.LOADING
    requests_total.labels(call.value, outcome.value).inc()
