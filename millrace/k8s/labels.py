"""What all rendered objects share: labels, the user that pods run as, and how YAML is written."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Final

import yaml

from queue_schemas.registry import Model

Manifest = dict[str, Any]

USER: Final = 10001
MODEL_LABEL: Final = "millrace.dev/model"
MARK: Final = "# Rendered by `millrace k8s render`"
"""Every rendered file begins so, and no other."""
_HEADER: Final = f"{MARK} from {{source}}. Do not edit: change those and render again.\n"
_NO_TEXT_IN_GO = re.compile(
    r"[-+]?(0[xX][\da-fA-F]+|0[oO][0-7]+|0[bB][01]+|(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?)|[yYnN]",
    re.ASCII,
)
"""What Kubernetes' YAML takes for a number or a boolean without quotes; PyYAML knows only some."""


class _Plain(yaml.SafeDumper):
    """Without anchors, and with the text of scripts as it is."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    if _NO_TEXT_IN_GO.fullmatch(value.replace("_", "")):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Plain.add_representer(str, _text)


def to_yaml(manifests: Sequence[Manifest], source: str) -> str:
    """A file of these objects, in this order and with keys in the order they were written."""
    documents = yaml.dump_all(
        manifests, Dumper=_Plain, sort_keys=False, width=100, explicit_start=False
    )
    return _HEADER.format(source=source) + documents


def labels(name: str, component: str) -> dict[str, str]:
    """The labels of everything of Millrace's."""
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "millrace",
    }


def worker_labels(model: Model) -> dict[str, str]:
    """The labels of a model's workers."""
    return {**labels("worker", "worker"), MODEL_LABEL: model.slug}


def pod_security() -> Manifest:
    """What the strictest of Kubernetes' standards for pods wants."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """The same of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def fingerprint(content: object, length: int = 10) -> str:
    """The same for the same content, on every machine."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
