"""What a built overlay holds, and how to ask it. Pure."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Manifest = dict[str, Any]
Labels = dict[str, str]

NAMESPACE = "millrace"


@dataclass(frozen=True)
class Container:
    """A container with the workload that it is of; sidecars and init containers too."""

    workload: "Workload"
    spec: Manifest
    is_init: bool

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def image(self) -> str:
        """Without its tag."""
        return str(self.spec["image"]).rpartition(":")[0] or str(self.spec["image"])

    @property
    def is_sidecar(self) -> bool:
        return self.spec.get("restartPolicy") == "Always"

    @property
    def is_ours(self) -> bool:
        return self.image.startswith("millrace/")

    @property
    def ports(self) -> dict[str, int]:
        """By name; one without a name by its number."""
        return {
            port.get("name", str(port["containerPort"])): port["containerPort"]
            for port in self.spec.get("ports", [])
        }

    def __str__(self) -> str:
        return f"{self.workload}/{self.name}"


@dataclass(frozen=True)
class Workload:
    """Whatever makes pods."""

    manifest: Manifest

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.manifest["metadata"].get("namespace", "default"))

    @property
    def template(self) -> Manifest:
        spec: Manifest = self.manifest["spec"]
        if self.kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        return (
            {"metadata": self.manifest["metadata"], "spec": spec}
            if self.kind == "Pod"
            else (spec["template"])
        )

    @property
    def labels(self) -> Labels:
        return dict(self.template.get("metadata", {}).get("labels", {}))

    @property
    def pod(self) -> Manifest:
        return dict(self.template["spec"])

    @property
    def containers(self) -> list[Container]:
        return [
            *(Container(self, spec, True) for spec in self.pod.get("initContainers", [])),
            *(Container(self, spec, False) for spec in self.pod["containers"]),
        ]

    @property
    def ports(self) -> dict[str, int]:
        """Of all containers that serve while the pod runs."""
        serving = [each for each in self.containers if each.is_sidecar or not each.is_init]
        return {name: port for each in serving for name, port in each.ports.items()}

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


_PODS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")


@dataclass(frozen=True)
class Cluster:
    """Everything that `kubectl apply -k` of one overlay would give to a cluster."""

    name: str
    objects: tuple[Manifest, ...]

    def of(self, *kinds: str) -> list[Manifest]:
        return [each for each in self.objects if each["kind"] in kinds]

    def find(self, kind: str, name: str, namespace: str = NAMESPACE) -> Manifest | None:
        return self._by_name.get((kind, name, namespace))

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, str], Manifest]:
        return {
            (each["kind"], each["metadata"]["name"], namespace_of(each)): each
            for each in self.objects
        }

    @cached_property
    def workloads(self) -> list[Workload]:
        return [Workload(each) for each in self.of(*_PODS)]

    @property
    def containers(self) -> Iterator[Container]:
        for workload in self.workloads:
            yield from workload.containers

    def keys(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, str] | None:
        """What a ConfigMap or a Secret holds; None: there is none of that name."""
        found = self.find(kind, name, namespace)
        if found is None:
            return None
        held = dict(found.get("data") or {})
        if kind == "Secret":
            held = {key: base64.b64decode(value).decode() for key, value in held.items()}
            held |= found.get("stringData") or {}
        return held


def namespace_of(manifest: Manifest) -> str:
    """Where it lives; what has no namespace stands in "default", which kubectl would choose."""
    return str(manifest["metadata"].get("namespace", "default"))


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def matches(selector: Manifest | None, labels: Labels) -> bool:
    """Whether a label selector takes labels; an empty one takes all, none takes nothing."""
    if selector is None:
        return False
    plain = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in plain.items()) and all(
        _meets(expression, labels) for expression in selector.get("matchExpressions", [])
    )


def _meets(expression: Manifest, labels: Labels) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case unknown:
            raise ValueError(f"no operator {unknown}")


def environment(cluster: Cluster, container: Container) -> dict[str, str]:
    """What the process finds in its environment; fields of the pod by their name."""
    found: dict[str, str] = {}
    for source in container.spec.get("envFrom", []):
        for kind, reference in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if reference in source:
                held = cluster.keys(kind, source[reference]["name"]) or {}
                found |= {source.get("prefix", "") + key: value for key, value in held.items()}
    for each in container.spec.get("env", []):
        found[each["name"]] = _expand(_value(cluster, each), found)
    return found


def _value(cluster: Cluster, each: Manifest) -> str:
    source = each.get("valueFrom")
    if source is None:
        return str(each.get("value", ""))
    for kind, reference in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if reference in source:
            held = cluster.keys(kind, source[reference]["name"]) or {}
            return held.get(source[reference]["key"], "")
    (field,) = source.values()
    return str(field.get("fieldPath") or field.get("resource")).rpartition(".")[2]


def _expand(value: str, earlier: dict[str, str]) -> str:
    """Kubernetes replaces $(NAME) by what stands above it."""
    for name, known in earlier.items():
        value = value.replace(f"$({name})", known)
    return value
