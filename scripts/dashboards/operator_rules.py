"""The rules as objects of the Prometheus operator, for clusters that have one."""

from pathlib import Path
from typing import Any, Final

import yaml

_COMPONENTS: Final = Path(__file__).parents[2] / "k8s" / "components"
RULES: Final = _COMPONENTS / "monitoring" / "rules"
FILE: Final = _COMPONENTS / "service-monitors" / "rules.yaml"
_HEAD: Final = "# Made of components/monitoring/rules by `make schemas`. Change it there.\n"


def text() -> str:
    """One object for each file of rules."""
    made = [_made(path) for path in sorted(RULES.glob("*.yml"))]
    return _HEAD + yaml.safe_dump_all(made, sort_keys=False, allow_unicode=True, width=100)


def _made(path: Path) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"millrace-{path.stem}",
            "namespace": "millrace",
            "labels": {"app.kubernetes.io/part-of": "millrace"},
        },
        "spec": yaml.safe_load(path.read_text("utf-8")),
    }
