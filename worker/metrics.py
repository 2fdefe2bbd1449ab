"""Prometheus metrics of one worker, read from how it stands when somebody asks."""

from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from worker.execute import CANCELLED
from worker.standing import Standing

MEDIA_TYPE = CONTENT_TYPE_LATEST


def make_registry(standing: Standing) -> CollectorRegistry:
    """The metrics of this worker. All of them name its one model, as the master's do."""
    registry = CollectorRegistry()
    registry.register(_Worker(standing))
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text that Prometheus scrapes."""
    return generate_latest(registry)


class _Worker(Collector):
    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        """As it stands now."""
        standing, model = self._standing, self._standing.model
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

    def _gauge(self, name: str, text: str, value: int) -> Metric:
        gauge = GaugeMetricFamily(f"millrace_worker_{name}", text, labels=["model"])
        gauge.add_metric([self._standing.model.name], value)
        return gauge

    def _counter(self, name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
        counter = CounterMetricFamily(f"millrace_worker_{name}", text, labels=["model", label])
        for value, count in counts.items():
            counter.add_metric([self._standing.model.name, value], count)
        return counter
