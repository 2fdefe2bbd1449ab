"""What the API server refuses though schemas take it: names, duplicates, contradictions. Pure.

There is no API server here; these are its rules for the fields that we use.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from tests.packaging.k8s.manifests import Cluster, Container, Manifest, Workload, title

_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PORT = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[KMGT]i?)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DATA = re.compile(r"[A-Za-z0-9._-]{1,253}")
_CRON = re.compile(r"\S+( \S+){4}")
_LARGEST = 1_000_000


def refused(cluster: Cluster) -> Iterator[str]:
    """Everything that would not be taken, in words."""
    for each in cluster.objects:
        yield from (f"{title(each)}: {fault}" for fault in _of_any(each))
        if each["kind"] in _RULES:
            yield from (f"{title(each)}: {fault}" for fault in _RULES[each["kind"]](each))
    for workload in cluster.workloads:
        yield from (f"{workload}: {fault}" for fault in _of_pod(workload))
        for container in workload.containers:
            yield from (f"{container}: {fault}" for fault in _of_container(container))


def _twice(what: str, names: Iterable[object]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"two {what} are {name}"


def _of_any(each: Manifest) -> Iterator[str]:
    metadata = each["metadata"]
    if not _OBJECT.fullmatch(metadata["name"]):
        yield "its name is none"
    for key, value in metadata.get("labels", {}).items():
        if not _KEY.fullmatch(key) or not isinstance(value, str) or not _LABEL.fullmatch(value):
            yield f"{key}: {value!r} is no label"
    for key, value in metadata.get("annotations", {}).items():
        if not _KEY.fullmatch(key) or not isinstance(value, str):
            yield f"{key}: {value!r} is no annotation"


def _of_data(each: Manifest) -> Iterator[str]:
    data = each.get("data") or {}
    yield from (f"{key} is no key" for key in data if not _DATA.fullmatch(key))
    if sum(len(value) for value in data.values()) > _LARGEST:
        yield "it is too large"


def _of_deployment(each: Manifest) -> Iterator[str]:
    strategy = each["spec"].get("strategy", {})
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        yield "Recreate takes no rollingUpdate"
    rolling = strategy.get("rollingUpdate", {})
    if rolling.get("maxSurge") == 0 and rolling.get("maxUnavailable", "25%") == 0:
        yield "with neither surge nor absence it could never be replaced"


def _of_service(each: Manifest) -> Iterator[str]:
    spec = each["spec"]
    if not _DNS_LABEL.fullmatch(each["metadata"]["name"]):
        yield "its name is no name of a host"
    ports = spec.get("ports", [])
    if len(ports) > 1 and not all("name" in port for port in ports):
        yield "several ports need names"
    yield from _twice("ports", (port.get("name") for port in ports))
    yield from _twice("ports", ((port["port"], port.get("protocol")) for port in ports))
    for port in ports:
        if "nodePort" in port and not 30000 <= port["nodePort"] <= 32767:
            yield f"{port['nodePort']} is no port of nodes"
        if "nodePort" in port and spec.get("type") not in {"NodePort", "LoadBalancer"}:
            yield "only NodePort has one"


def _of_job(each: Manifest) -> Iterator[str]:
    spec = each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each["spec"]
    if spec["template"]["spec"].get("restartPolicy") not in {"Never", "OnFailure"}:
        yield "its pods must not be restarted always"
    if each["kind"] == "CronJob" and not _CRON.fullmatch(each["spec"]["schedule"]):
        yield "its schedule is none"


def _of_claim(each: Manifest) -> Iterator[str]:
    modes = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
    if not each["spec"]["accessModes"] or set(each["spec"]["accessModes"]) - modes:
        yield "its access mode is none"
    if not _QUANTITY.fullmatch(str(each["spec"]["resources"]["requests"]["storage"])):
        yield "its size is none"


def _of_policy(each: Manifest) -> Iterator[str]:
    for direction in ("ingress", "egress"):
        if direction in each["spec"] and direction.title() not in each["spec"]["policyTypes"]:
            yield f"its rules of {direction} count for nothing"
        for rule in each["spec"].get(direction, []):
            for peer in [*rule.get("from", []), *rule.get("to", [])]:
                if "ipBlock" in peer and len(peer) > 1:
                    yield "a block of addresses stands alone"
            for port in rule.get("ports", []):
                if "endPort" in port and not isinstance(port.get("port"), int):
                    yield "a range begins with a number"


_RULES: dict[str, Callable[[Manifest], Iterator[str]]] = {
    "ConfigMap": _of_data,
    "Secret": _of_data,
    "Deployment": _of_deployment,
    "Service": _of_service,
    "Job": _of_job,
    "CronJob": _of_job,
    "PersistentVolumeClaim": _of_claim,
    "NetworkPolicy": _of_policy,
}


def _of_pod(workload: Workload) -> Iterator[str]:
    pod = workload.pod
    yield from _twice("containers", (each.name for each in workload.containers))
    yield from _twice("volumes", (volume["name"] for volume in pod.get("volumes", [])))
    running = [each for each in workload.containers if each.is_sidecar or not each.is_init]
    yield from _twice("port names", (name for each in running for name in each.ports))
    yield from _twice("ports", (port for each in running for port in each.ports.values()))
    for volume in pod.get("volumes", []):
        if len(volume) != 2:
            yield f"volume {volume['name']} is of several kinds, or of none"
    for each in pod.get("tolerations", []):
        if each.get("operator") == "Exists" and "value" in each:
            yield "a toleration that something exists has no value"
    for key, value in workload.labels.items():
        if not _KEY.fullmatch(key) or not _LABEL.fullmatch(str(value)):
            yield f"{key}: {value!r} is no label"


def _of_container(container: Container) -> Iterator[str]:
    spec = container.spec
    if not _DNS_LABEL.fullmatch(container.name):
        yield "its name is none"
    yield from (f"{name} is no name of a port" for name in container.ports if _is_no_port(name))
    yield from _of_variables(spec.get("env", []))
    yield from _twice("mounts", (mount["mountPath"] for mount in spec.get("volumeMounts", [])))
    for kind, amounts in spec.get("resources", {}).items():
        for name, amount in amounts.items():
            if not _QUANTITY.fullmatch(str(amount)):
                yield f"{kind}.{name}: {amount} is no quantity"
    if container.is_init and not container.is_sidecar:
        for field in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
            if field in spec:
                yield f"what only prepares has no {field}"
    for field in ("livenessProbe", "startupProbe"):
        if spec.get(field, {}).get("successThreshold", 1) != 1:
            yield f"{field} succeeds at once"


def _of_variables(env: list[Manifest]) -> Iterator[str]:
    names = [each["name"] for each in env]
    yield from _twice("variables", names)
    yield from (f"{name} is no variable" for name in names if not _VARIABLE.fullmatch(name))
    both = [each["name"] for each in env if "value" in each and "valueFrom" in each]
    yield from (f"{name} has two values" for name in both)


def _is_no_port(name: str) -> bool:
    return not (name.isdigit() or _PORT.fullmatch(name))
