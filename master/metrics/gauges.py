"""What stands in database and broker, as the latest look found it: the same on every replica.

Only open streams, connections to the database, and whether database and broker answer, are this
replica's own. Nothing is asked when somebody scrapes.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from types import MappingProxyType

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.pool import Pool, QueuePool

from db.census import Census
from db.workers import ModelLoad
from master.fleet import Dependency, FleetView, Look
from master.metrics.exposition import registry
from master.metrics.labels import model_label
from queue_schemas.registry import Registry
from queue_schemas.states import DocumentState, RuleState

_Values = Iterable[tuple[tuple[str, ...], float]]
"""Of labels, in their order."""

_STATES = ("blocked", "delayed", "ready", "queued", "running")
"""Of open subtasks, and the fields of a load."""


class Replica(Collector):
    """All metrics of one master."""

    def __init__(
        self,
        view: FleetView,
        open_streams: int,
        pools: Mapping[str, Pool] = MappingProxyType({}),
    ) -> None:
        self._view = view
        self._open_streams = open_streams
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        """What was counted, and how it stands now."""
        yield from registry.collect()
        yield from self.gauges()

    def gauges(self) -> Iterator[Metric]:
        """How it stands now."""
        view, known = self._view, self._view.registry()
        yield from self._fresh(_of_subtasks(view, known), Look.TABLES)
        yield from self._fresh(_of_messages(view, known), Look.TABLES, Look.DEPTHS)
        yield from self._fresh(_of_queues(view, known), Look.DEPTHS)
        yield _of_windows(view, known)
        yield from self._fresh(_of_workers(view, known), Look.TABLES)
        if view.census is not None:
            yield from self._fresh(_of_the_census(view.census, known), Look.CENSUS)
        yield _of_dependencies(view)
        streams = float(self._open_streams)
        yield _one("millrace_open_streams", "Streams that are open on this replica.", streams)
        yield _of_pools(self._pools)
        build = InfoMetricFamily("millrace_build", "Release of this replica.")
        build.add_metric([], {"version": version("millrace")})
        yield build

    def _fresh(self, seen: Iterable[Metric], *looks: Look) -> Iterable[Metric]:
        """Nothing of what was seen too long ago: it would look as if it were still so."""
        now = time.monotonic()
        return seen if all(self._view.is_fresh(look, now) for look in looks) else ()


def _of_subtasks(view: FleetView, known: Registry) -> Iterator[Metric]:
    states = [
        ((model, state), float(getattr(load, state)))
        for model, load in view.loads.items()
        for state in _STATES
    ]
    yield _gauge(
        "millrace_subtasks",
        "Open subtasks in the database: blocked by others of their request, delayed until the time "
        "of their next try, ready and not yet published, queued at the broker, running.",
        ("model", "state"),
        _summed(states, [(model, state) for model in _names(known) for state in _STATES]),
    )
    backlog = [((model,), float(load.ready)) for model, load in view.loads.items()]
    yield _gauge(
        "millrace_backlog_subtasks",
        "Subtasks that are ready and wait in the database for room on their model's queue.",
        ("model",),
        _summed(backlog, _keys(known)),
    )
    oldest = [((model,), load.oldest_seconds) for model, load in view.loads.items()]
    yield _gauge(
        "millrace_oldest_waiting_seconds",
        "How long the subtask has waited that waits longest, in the database or on its queue.",
        ("model",),
        _greatest(oldest, _keys(known)),
    )
    unpublished = [((model,), load.unpublished_seconds) for model, load in view.loads.items()]
    yield _gauge(
        "millrace_outbox_oldest_seconds",
        "How long the subtask has been due that waits longest to be published.",
        ("model",),
        _greatest(unpublished, _keys(known)),
    )
    yield _one(
        "millrace_outbox_rows",
        "Rows of the outbox: subtasks to be published, now or after a pause, or being published.",
        float(view.outbox.rows),
    )


def _of_messages(view: FleetView, known: Registry) -> Iterator[Metric]:
    models = [model for model in known.chat_models() if model.name in view.depths]
    messages = _gauge(
        "millrace_queue_messages",
        "Messages on a model's queue: ready, as the broker says; unacked is what is published and "
        "not ended by the database, less the ready ones (RabbitMQ's own metrics know it exactly).",
        ("model", "state"),
        (),
    )
    for model in models:
        ready = view.depths[model.name].ready
        load = view.loads.get(model.name, ModelLoad())
        messages.add_metric([model.name, "ready"], ready)
        messages.add_metric([model.name, "unacked"], max(0, load.queued + load.running - ready))
    yield messages


def _of_queues(view: FleetView, known: Registry) -> Iterator[Metric]:
    consumers = {
        (model.name,): float(view.depths[model.name].consumers)
        for model in known.chat_models()
        if model.name in view.depths
    }
    yield _gauge(
        "millrace_queue_consumers",
        "Consumers of a model's queue at the broker.",
        ("model",),
        consumers.items(),
    )
    quarantined = float(view.quarantined)
    yield _one(
        "millrace_quarantined_messages", "Messages that nobody could read, put aside.", quarantined
    )


def _of_windows(view: FleetView, known: Registry) -> Metric:
    return _gauge(
        "millrace_queue_window",
        "The most subtasks that masters put on a model's queue at once; others wait in the "
        "database.",
        ("model",),
        (((model.name,), float(view.depth(model))) for model in known.chat_models()),
    )


def _of_workers(view: FleetView, known: Registry) -> Iterator[Metric]:
    states = {False: "live", True: "draining"}
    workers = [((w["model"], states[w["draining"]]), 1.0) for w in view.workers]
    yield _gauge(
        "millrace_model_workers",
        "Workers that were heard of lately: live ones take subtasks, draining ones finish theirs.",
        ("model", "state"),
        _summed(workers, [(model, state) for model in _names(known) for state in states.values()]),
    )
    for name, text, field in (
        ("model_slots", "Subtasks that the live workers can do at once.", "slots"),
        ("model_slots_busy", "Slots of live workers that have a subtask.", "running"),
    ):
        slots = [((w["model"],), float(w[field])) for w in view.workers if not w["draining"]]
        yield _gauge(f"millrace_{name}", text, ("model",), _summed(slots, _keys(known)))


def _of_dependencies(view: FleetView) -> Metric:
    now = time.monotonic()
    return _gauge(
        "millrace_dependency_up",
        "Whether this replica has had an answer lately.",
        ("dependency",),
        (((each.value,), float(view.is_up(each, now))) for each in Dependency),
    )


def _of_the_census(census: Census, known: Registry) -> Iterator[Metric]:
    dead = [((model,), float(number)) for model, number in census.dead.items()]
    yield _gauge(
        "millrace_dead_subtasks",
        "Dead subtasks that no person has done again or put away.",
        ("model",),
        _summed(dead, _keys(known)),
    )
    yield _gauge(
        "millrace_documents",
        "Documents of all collections.",
        ("state",),
        (((state.value,), census.documents.get(state, 0)) for state in DocumentState),
    )
    yield _gauge(
        "millrace_rules",
        "Versions of rules.",
        ("state",),
        (((state.value,), census.rules.get(state, 0)) for state in RuleState),
    )


def _of_pools(pools: Mapping[str, Pool]) -> Metric:
    """Nothing of one whose connections are somebody else's, as behind a pooler."""
    found = [
        ((name, state), float(number))
        for name, pool in pools.items()
        if isinstance(pool, QueuePool)
        for state, number in (
            ("busy", pool.checkedout()),
            ("free", pool.size() - pool.checkedout()),
        )
    ]
    return _gauge(
        "millrace_database_connections",
        "Connections to the database that this replica may have, by whether one is in use.",
        ("pool", "state"),
        found,
    )


def _names(known: Registry) -> list[str]:
    return [model.name for model in known.chat_models()]


def _keys(known: Registry) -> list[tuple[str, ...]]:
    return [(name,) for name in _names(known)]


def _summed(values: _Values, keys: Iterable[tuple[str, ...]]) -> _Values:
    """Sums by labels, of which the first is a model; 0 for each of the keys that has no value."""
    sums = dict.fromkeys(keys, 0.0)
    for (model, *rest), value in values:
        key = (model_label(model), *rest)
        sums[key] = sums.get(key, 0.0) + value
    return sums.items()


def _greatest(values: _Values, keys: Iterable[tuple[str, ...]]) -> _Values:
    """The same with the greatest value in place of the sum."""
    found = dict.fromkeys(keys, 0.0)
    for (model, *rest), value in values:
        key = (model_label(model), *rest)
        found[key] = max(found.get(key, 0.0), value)
    return found.items()


def _gauge(name: str, text: str, labels: tuple[str, ...], values: _Values) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        gauge.add_metric(key, value)
    return gauge


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return _gauge(name, text, (), [((), value)])
