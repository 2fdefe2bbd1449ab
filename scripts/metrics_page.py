"""The tables of docs/metrics.md, from the metrics as the processes make them."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from bus.protocol import Depth
from db.census import Census
from db.engine import create_engine
from db.workers import ModelLoad
from master.batch import metrics as celery
from master.embedder import metrics as embedder
from master.fleet import FleetView, Look
from master.metrics import chats, ingests, learned, loops, searches, sign_ins
from master.metrics.gauges import Replica
from queue_schemas.registry import Registry
from worker.metrics import make_registry
from worker.standing import Standing

PAGE: Final = Path(__file__).parents[1] / "docs" / "metrics.md"
_REGISTRY: Final = Registry.model_validate({"models": [{"name": "m", "provider": "scripted"}]})


class Row(NamedTuple):
    """One metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def rows() -> dict[str, list[Row]]:
    """Every metric by the process that has it, in the order of the code."""
    model = _REGISTRY.models[0]
    view = FleetView(lambda: _REGISTRY, window=2, loads={"m": ModelLoad()}, census=Census())
    view.depths = {"m": Depth(0, 0)}
    view.fresh_until = dict.fromkeys(Look, math.inf)
    pools = {"requests": create_engine("postgresql://h/d").pool}
    return {
        "master": [
            *(
                row
                for module in (chats, learned, searches, ingests, loops, sign_ins)
                for row in _counted(module)
            ),
            *map(_shown, Replica(view, 0, pools).gauges()),
        ],
        "worker": [*map(_shown, make_registry(Standing("w", model)).collect())],
        "celery": [row for module in (celery, ingests, loops) for row in _counted(module)],
        "embedder": [*_counted(embedder), *map(_shown, embedder.Embedder(ready=True).own())],
    }


def _counted(module: ModuleType) -> Iterator[Row]:
    for metric in vars(module).values():
        if isinstance(metric, Counter | Histogram):
            labels = metric._labelnames  # noqa: SLF001 - the library tells it in no other way
            yield _row(next(iter(metric.collect())), labels)


def _shown(metric: Metric) -> Row:
    found = {label: None for sample in metric.samples for label in sample.labels}
    return _row(metric, [label for label in found if label != "le"])


def _row(metric: Metric, labels: Iterable[str]) -> Row:
    ending = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    kind = "gauge" if metric.type == "info" else metric.type
    return Row(metric.name + ending, kind, tuple(labels), metric.documentation)


def table(found: Iterable[Row]) -> str:
    """Rows as a table."""
    lines = [
        f"| `{row.name}` | {row.kind} | {', '.join(f'`{name}`' for name in row.labels)} "
        f"| {row.text} |"
        for row in found
    ]
    return "\n".join(["| metric | type | labels | what it tells |", "|---|---|---|---|", *lines])


def filled(text: str) -> str:
    """The page with every table between its two marks made anew."""
    for process, found in rows().items():
        start, end = f"<!-- metrics of {process}: generated -->", "<!-- end -->"
        block = f"{start}\n{table(found)}\n{end}"
        pattern = re.escape(start) + ".*?" + re.escape(end)
        text, count = re.subn(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page must have one place for the metrics of {process}")
    return text


def write() -> int:
    """Fill the page; returns how many metrics it has."""
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
    return sum(map(len, rows().values()))
