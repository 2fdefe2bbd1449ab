"""Everything in a manifest that names something else, and whether that is there. Pure."""

from collections.abc import Iterator

from tests.packaging.k8s.manifests import (
    Cluster,
    Container,
    Manifest,
    Workload,
    matches,
    namespace_of,
    title,
)
from tests.packaging.k8s.scaler_rules import authentication


def missing(cluster: Cluster) -> Iterator[str]:
    """What is named and is not there."""
    for workload in cluster.workloads:
        yield from _of_pod(cluster, workload)
        for container in workload.containers:
            yield from _of_environment(cluster, container)
            yield from _of_mounts(cluster, container)
    for service in cluster.of("Service"):
        yield from _of_service(cluster, service)
    for ingress in cluster.of("Ingress"):
        yield from _of_ingress(cluster, ingress)
    for binding in cluster.of("RoleBinding", "ClusterRoleBinding"):
        yield from _of_binding(cluster, binding)
    for scaled in cluster.of("ScaledObject"):
        yield from _of_scaled_object(cluster, scaled)
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for each in cluster.of(kind):
            yield from _of_selector(cluster, each)


def _of_pod(cluster: Cluster, workload: Workload) -> Iterator[str]:
    account = workload.pod.get("serviceAccountName", "default")
    if account != "default" and not cluster.find("ServiceAccount", account, workload.namespace):
        yield f"{workload}: there is no ServiceAccount {account}"
    selector = workload.manifest["spec"].get("selector")
    if workload.kind in {"Deployment", "StatefulSet", "DaemonSet"} and not matches(
        selector, workload.labels
    ):
        yield f"{workload}: its selector does not take its own pods"
    if workload.kind == "StatefulSet" and not cluster.find(
        "Service", workload.manifest["spec"]["serviceName"]
    ):
        yield f"{workload}: there is no Service {workload.manifest['spec']['serviceName']}"
    for volume in workload.pod.get("volumes", []):
        yield from _of_volume(cluster, workload, volume)
    for each in workload.pod.get("topologySpreadConstraints", []):
        if not matches(each.get("labelSelector"), workload.labels):
            yield f"{workload}: its spread is over the pods of others"


def _of_volume(cluster: Cluster, workload: Workload, volume: Manifest) -> Iterator[str]:
    if "persistentVolumeClaim" in volume:
        name = volume["persistentVolumeClaim"]["claimName"]
        if not cluster.find("PersistentVolumeClaim", name, workload.namespace):
            yield f"{workload}: there is no PersistentVolumeClaim {name}"
    for source in (volume, *volume.get("projected", {}).get("sources", [])):
        for key, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            if key in source:
                yield from _held(cluster, workload, kind, source[key])


def _held(cluster: Cluster, workload: Workload, kind: str, source: Manifest) -> Iterator[str]:
    """That a ConfigMap or Secret is there, with the keys that are asked for."""
    name = source.get("name") or source.get("secretName")
    held = cluster.keys(kind, str(name), workload.namespace)
    if held is None:
        if not source.get("optional"):
            yield f"{workload}: there is no {kind} {name}"
        return
    wanted = {item["key"] for item in source.get("items", [])}
    wanted |= {source["key"]} if "key" in source else set()
    if not source.get("optional"):
        yield from (
            f"{workload}: {kind} {name} has no {key}" for key in sorted(wanted - held.keys())
        )


def _of_environment(cluster: Cluster, container: Container) -> Iterator[str]:
    for each in container.spec.get("env", []):
        source = each.get("valueFrom", {})
        for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if key in source:
                yield from _held(cluster, container.workload, kind, source[key])
    for each in container.spec.get("envFrom", []):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in each:
                yield from _held(cluster, container.workload, kind, each[key])


def _of_mounts(cluster: Cluster, container: Container) -> Iterator[str]:
    pod = container.workload.pod
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    claims = container.workload.manifest["spec"].get("volumeClaimTemplates", [])
    names = volumes.keys() | {claim["metadata"]["name"] for claim in claims}
    for mount in container.spec.get("volumeMounts", []):
        if mount["name"] not in names:
            yield f"{container}: there is no volume {mount['name']}"
        source = volumes.get(mount["name"], {}).get("configMap")
        if source and "subPath" in mount and "items" not in source:
            held = cluster.keys("ConfigMap", source["name"], container.workload.namespace) or {}
            if mount["subPath"] not in held:
                yield f"{container}: ConfigMap {source['name']} has no {mount['subPath']}"


def pods_of(cluster: Cluster, selector: Manifest | None, namespace: str) -> list[Workload]:
    return [
        each
        for each in cluster.workloads
        if each.namespace == namespace and matches(selector, each.labels)
    ]


def _of_service(cluster: Cluster, service: Manifest) -> Iterator[str]:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return
    pods = pods_of(cluster, {"matchLabels": spec.get("selector", {})}, namespace_of(service))
    if not pods or not spec.get("selector"):
        yield f"{title(service)}: it selects no pods"
    for port in spec["ports"]:
        target = port.get("targetPort", port["port"])
        for pod in pods:
            known = pod.ports.keys() if isinstance(target, str) else pod.ports.values()
            if target not in known:
                yield f"{title(service)}: {pod} has no port {target}"


def _of_ingress(cluster: Cluster, ingress: Manifest) -> Iterator[str]:
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    for path in paths:
        wanted = path["backend"]["service"]
        service = cluster.find("Service", wanted["name"], namespace_of(ingress))
        if service is None:
            yield f"{title(ingress)}: there is no Service {wanted['name']}"
            continue
        ports = service["spec"]["ports"]
        known = {port["port"] for port in ports} | {port.get("name") for port in ports}
        port = wanted["port"].get("number", wanted["port"].get("name"))
        if port not in known:
            yield f"{title(ingress)}: Service {wanted['name']} has no port {port}"


def _of_binding(cluster: Cluster, binding: Manifest) -> Iterator[str]:
    role = binding["roleRef"]
    namespace = "default" if role["kind"] == "ClusterRole" else namespace_of(binding)
    if not cluster.find(role["kind"], role["name"], namespace):
        yield f"{title(binding)}: there is no {role['kind']} {role['name']}"
    for subject in binding["subjects"]:
        place = subject.get("namespace", namespace_of(binding))
        if not cluster.find("ServiceAccount", subject["name"], place):
            yield f"{title(binding)}: there is no ServiceAccount {subject['name']}"


def _of_scaled_object(cluster: Cluster, scaled: Manifest) -> Iterator[str]:
    target = scaled["spec"]["scaleTargetRef"]
    if not cluster.find(target.get("kind", "Deployment"), target["name"]):
        yield f"{title(scaled)}: there is no Deployment {target['name']}"
    for trigger in scaled["spec"]["triggers"]:
        try:
            authentication(cluster, scaled, trigger)
        except LookupError as error:
            yield f"{title(scaled)}: {error}"


def _of_selector(cluster: Cluster, each: Manifest) -> Iterator[str]:
    key = "podSelector" if each["kind"] == "NetworkPolicy" else "selector"
    if not pods_of(cluster, each["spec"][key], namespace_of(each)):
        yield f"{title(each)}: it selects no pods"


def unused(cluster: Cluster) -> Iterator[str]:
    """ConfigMaps, Secrets, claims and accounts that nothing names: left over, or misspelled."""
    spelled = set(_spelled([each for each in cluster.objects if each["kind"] not in _HELD]))
    for each in cluster.of(*_HELD):
        if each["metadata"]["name"] not in spelled:
            yield f"{title(each)}: nothing uses it"


_HELD = ("ConfigMap", "Secret", "PersistentVolumeClaim")
_NAMING = {"name", "secretName", "claimName", "serviceAccountName"}


def _spelled(node: object, key: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for inner, each in node.items():
            if inner != "metadata":
                yield from _spelled(each, inner)
    elif isinstance(node, list):
        for each in node:
            yield from _spelled(each, key)
    elif key in _NAMING:
        yield str(node)
