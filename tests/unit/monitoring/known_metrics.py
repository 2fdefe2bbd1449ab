"""Every metric that there is, with its labels: ours as the code has them, and those of others."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import master.batch.metrics
import master.metrics.chats
import master.metrics.ingests
import master.metrics.learned
import master.metrics.loops
import master.metrics.searches
import master.metrics.sign_ins  # noqa: F401 - the last of them
from db.census import Census
from db.engine import create_engine
from master.embedder.metrics import Embedder
from master.embedder.metrics import registry as of_embedders
from master.fleet import FleetView, Look
from master.metrics.exposition import registry
from master.metrics.gauges import Replica
from queue_schemas.registry import Model, ProviderName, Registry
from worker import metrics as of_workers
from worker.standing import Standing

Metrics = Mapping[str, frozenset[str]]
OF_SCRAPING = frozenset({"job", "instance"})
"""Labels that Prometheus itself gives to all."""
_SUFFIXES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "counter": {"_total": ()},
    "histogram": {"_bucket": ("le",), "_sum": (), "_count": ()},
    "info": {"_info": ()},
}

FOREIGN: Metrics = {
    # Prometheus' own: of every target, and of the rules.
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "model"}),
    # RabbitMQ's plugin rabbitmq_prometheus: /metrics, and /metrics/detailed with the families
    # queue_coarse_metrics and queue_consumer_count.
    "rabbitmq_alarms_memory_used_watermark": frozenset(),
    "rabbitmq_alarms_free_disk_space_watermark": frozenset(),
    "rabbitmq_detailed_queue_messages_ready": frozenset({"vhost", "queue"}),
    "rabbitmq_detailed_queue_messages_unacked": frozenset({"vhost", "queue"}),
    # KEDA's operator, port 8080.
    "keda_scaler_metrics_value": frozenset({"namespace", "metric", "scaledObject", "scaler"}),
    "keda_scaler_active": frozenset({"namespace", "metric", "scaledObject", "scaler"}),
    "keda_scaler_detail_errors_total": frozenset({"namespace", "scaledObject", "scaler"}),
}


def ours() -> dict[str, frozenset[str]]:
    """What our processes show, also what they have nothing to say of yet."""
    model = Model(name="m", provider=ProviderName.SCRIPTED)
    view = FleetView(lambda: Registry(models=(model,)), window=2, census=Census())
    view.fresh_until = dict.fromkeys(Look, float("inf"))
    return _of(
        [
            *_collectors(registry),
            *_collectors(of_embedders),
            *_collectors(of_workers.make_registry(Standing("w", model))),
            Replica(view, 0, {"requests": create_engine("postgresql://h/d").pool}),
            Embedder(ready=True),
        ]
    )


def _collectors(one: CollectorRegistry) -> Iterable[Collector]:
    return one._collector_to_names


def _of(collectors: Iterable[Collector]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for collector in collectors:
        for metric in collector.collect():
            labels = frozenset(_labels(collector, metric))
            for name, more in _series(metric):
                found[name] = found.get(name, frozenset()) | labels | set(more)
    return found


def _labels(collector: Any, metric: Metric) -> Iterator[str]:
    yield from getattr(collector, "_labelnames", ())
    yield from getattr(metric, "_labelnames", ())
    for sample in metric.samples:
        yield from sample.labels.keys() - {"le"}


def _series(metric: Metric) -> Iterator[tuple[str, tuple[str, ...]]]:
    for suffix, more in _SUFFIXES.get(metric.type, {"": ()}).items():
        yield metric.name + suffix, more
