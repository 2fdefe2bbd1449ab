"""`images/versions.env`, the one place for releases, and the component that names them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from millrace.k8s.labels import Manifest
from millrace.k8s.problems import Unfit
from millrace.problems import reason

OURS: Final = ("celery", "embedder", "llama-server", "master", "worker")
TAGS: Final[Mapping[str, str]] = {
    "grafana/grafana": "GRAFANA_TAG",
    **{f"millrace/{name}": "MILLRACE_TAG" for name in OURS},
    "n8nio/n8n": "N8N_TAG",
    "ollama/ollama": "OLLAMA_TAG",
    "openwebui/open-webui": "OPEN_WEBUI_TAG",
    "pgvector/pgvector": "POSTGRES_TAG",
    "prom/prometheus": "PROMETHEUS_TAG",
    "rabbitmq": "RABBITMQ_TAG",
}
"""Images as manifests name them, and the line that has their tag."""
_DEVICE_PLUGIN: Final = "DEVICE_PLUGIN_VERSION"
KUBERNETES_MINIMUM: Final = "KUBERNETES_MINIMUM"
OLLAMA: Final = "OLLAMA_TAG"

_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=([A-Za-z0-9._-]{1,128})")
_NUMBERS = re.compile(r"v?(\d+)\.(\d+)")


def load(path: Path) -> dict[str, str]:
    """All lines of the file. Raises `Unfit`."""
    try:
        return parse(path.read_text("utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise Unfit([f"{path}: {reason(error)}"]) from error


def parse(text: str, name: str) -> dict[str, str]:
    """Lines `NAME=value`, and comments. Raises `Unfit`, also for a name that is missing."""
    found: dict[str, str] = {}
    problems = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            problems.append(f"{name}:{number}: write NAME=value, without spaces and quotes")
        elif match[1] in found:
            problems.append(f"{name}:{number}: {match[1]} was given before")
        else:
            found[match[1]] = match[2]
    needed = {*TAGS.values(), _DEVICE_PLUGIN, KUBERNETES_MINIMUM}
    problems += [f"{name}: {each} is missing" for each in sorted(needed - found.keys())]
    if problems:
        raise Unfit(problems)
    return found


def component(found: Mapping[str, str]) -> Manifest:
    """The kustomization that names a tag for every image, and a version for every chart."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [{"name": image, "newTag": found[TAGS[image]]} for image in sorted(TAGS)],
        "patches": [_chart_version("nvidia-device-plugin", found[_DEVICE_PLUGIN])],
    }


def _chart_version(name: str, version: str) -> Manifest:
    """Does nothing where the overlay has no such chart."""
    change = {"op": "replace", "path": "/spec/version", "value": version}
    return {"target": {"kind": "HelmChart", "name": name}, "patch": json.dumps([change])}


def too_old(server: str, minimum: str) -> str | None:
    """Why this release of Kubernetes will not do; None: it will."""
    given, least = _numbers(server), _numbers(minimum)
    if given is None:
        return f"{server!r} is no version of Kubernetes, such as 1.33.2."
    if least is None or given >= least:
        return None
    return (
        f"Kubernetes {server} is too old: {minimum} is the oldest that will do (sidecars that "
        "outlive a worker, KEDA). Upgrade the cluster, then try again."
    )


def _numbers(version: str) -> tuple[int, int] | None:
    match = _NUMBERS.match(version)
    return (int(match[1]), int(match[2])) if match else None
