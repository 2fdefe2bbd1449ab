"""Prometheus metrics of one worker, read from how it stands when somebody asks."""

from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import (
    CONTENT_TYPE_PLAIN_0_0_4,
    choose_encoder,
    generate_latest,
)
from prometheus_client.registry import Collector

from queue_schemas.messages import CANCELLED, ErrorKind
from worker.standing import Standing

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# No dashboard asks when a count began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own


def make_registry(standing: Standing) -> CollectorRegistry:
    """The metrics of this worker. All of them name its one model, as the master's do."""
    registry = CollectorRegistry()
    registry.register(_Worker(standing))
    return registry


def render(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """What Prometheus scrapes, and its media type, by what the scraper accepts."""
    try:
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type
    except (TypeError, ValueError):  # a version that is no number
        return generate_latest(registry), MEDIA_TYPE


class _Worker(Collector):
    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        """As it stands now."""
        standing, model, pace = self._standing, self._standing.model, self._standing.pace
        build = InfoMetricFamily("millrace_worker_build", "Release, and what it serves.")
        said = {"version": version("millrace"), "provider": model.provider.value}
        build.add_metric([], {"model": model.name} | said)
        yield build
        ready = int(standing.why_not_ready() is None)
        yield self._gauge("ready", "Whether it takes subtasks.", ready)
        yield self._gauge("running_subtasks", "Executions in progress.", len(standing.running))
        yield self._gauge("subtask_slots", "Executions that it takes at once.", model.slots)
        outcomes = {name: standing.executions[name] for name in ("completed", "failed", CANCELLED)}
        yield self._counter("executions", "Executions that ended.", "outcome", outcomes)
        kinds = {name: standing.tokens[name] for name in ("prompt", "completion")}
        yield self._counter("tokens", "Tokens of these, counted or estimated.", "kind", kinds)
        seconds = CounterMetricFamily(
            "millrace_worker_engine_seconds", "Time that they held the engine.", labels=["model"]
        )
        seconds.add_metric([model.name], standing.engine_seconds)
        yield seconds
        again = CounterMetricFamily(
            "millrace_worker_redeliveries",
            "Subtasks that it was handed after somebody else had them.",
            labels=["model"],
        )
        again.add_metric([model.name], standing.redeliveries)
        yield again
        failures = {kind.value: standing.engine_failures[kind.value] for kind in ErrorKind}
        text = "Executions that failed, by what the master may do about it."
        yield self._counter("engine_failures", text, "kind", failures)
        for times in (pace.first_token, pace.inter_token, pace.tokens_per_second):
            yield from times.collect()

    def _gauge(self, name: str, text: str, value: int) -> Metric:
        gauge = GaugeMetricFamily(f"millrace_worker_{name}", text, labels=["model"])
        gauge.add_metric([self._standing.model.name], value)
        return gauge

    def _counter(self, name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
        counter = CounterMetricFamily(f"millrace_worker_{name}", text, labels=["model", label])
        for value, count in counts.items():
            counter.add_metric([self._standing.model.name, value], count)
        return counter
