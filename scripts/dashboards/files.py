"""The dashboards as files, which Kubernetes and compose give to Grafana."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from scripts.dashboards.grafana import made
from scripts.dashboards.latency import LATENCY
from scripts.dashboards.learning import LEARNING
from scripts.dashboards.panels import Dashboard
from scripts.dashboards.queues import QUEUES
from scripts.dashboards.reliability import RELIABILITY
from scripts.dashboards.retrieval import RETRIEVAL
from scripts.dashboards.workers import WORKERS

FOLDER: Final = Path(__file__).parents[2] / "k8s" / "components" / "monitoring" / "dashboards"
ALL: Final[dict[str, Dashboard]] = {
    "queues": QUEUES,
    "latency": LATENCY,
    "workers": WORKERS,
    "retrieval": RETRIEVAL,
    "learning": LEARNING,
    "reliability": RELIABILITY,
}


def texts() -> dict[str, str]:
    """The text of each file, by its name."""
    return {f"{name}.json": text(made(each)) for name, each in ALL.items()}


def text(dashboard: Mapping[str, Any]) -> str:
    """JSON with a line for each panel.

    All of them are one ConfigMap, and an annotation with what was applied last has to hold it.
    """
    head = ",\n ".join(f'"{key}": {_line(dashboard[key])}' for key in dashboard if key != "panels")
    panels = ",\n  ".join(map(_line, dashboard["panels"]))
    return f'{{\n {head},\n "panels": [\n  {panels}\n ]\n}}\n'


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write(folder: Path = FOLDER) -> int:
    """Write all files; gives how many there are."""
    folder.mkdir(exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text, "utf-8")
    return len(ALL)
