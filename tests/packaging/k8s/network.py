"""Which connections NetworkPolicies let through: Kubernetes' rules over data. Pure."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.packaging.k8s.manifests import Cluster, Labels, Manifest, matches, namespace_of

_NAME_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection: a pod, or an address outside of the cluster's pods."""

    name: str
    namespace: str = ""
    """Empty: no pod."""
    labels: Labels = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    address: str = "10.42.0.7"
    """Kubernetes leaves open whether an address block means pods as well; here it does, as k3s
    has it, so what is closed is closed everywhere."""


class Policies:
    """All NetworkPolicies of a cluster, and the labels of its namespaces."""

    def __init__(self, cluster: Cluster) -> None:
        self._policies = cluster.of("NetworkPolicy")
        self._selecting: dict[object, list[Manifest]] = {}
        self._namespaces = {
            each["metadata"]["name"]: each["metadata"].get("labels", {})
            for each in cluster.of("Namespace")
        }

    def allow(self, source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP") -> bool:
        """Whether the source may open a connection to this port of the target."""
        return self._lets(source, "Egress", target, target, (port, protocol)) and self._lets(
            target, "Ingress", source, target, (port, protocol)
        )

    def selecting(self, pod: Endpoint, direction: str) -> list[Manifest]:
        """The policies that hold for a pod in this direction; none: everything is open."""
        known = (pod.namespace, frozenset(pod.labels.items()), direction)
        if known not in self._selecting:
            self._selecting[known] = [
                policy
                for policy in self._policies
                if namespace_of(policy) == pod.namespace
                and matches(policy["spec"]["podSelector"], pod.labels)
                and direction in _directions(policy["spec"])
            ]
        return self._selecting[known]

    def _lets(
        self,
        pod: Endpoint,
        direction: str,
        peer: Endpoint,
        target: Endpoint,
        port: tuple[int, str],
    ) -> bool:
        if not pod.namespace:
            return True
        found = self.selecting(pod, direction)
        return not found or any(
            self._is_peer(rule, direction, peer, namespace_of(policy))
            and _is_port(rule.get("ports"), target, port)
            for policy in found
            for rule in policy["spec"].get(direction.lower(), [])
        )

    def _is_peer(self, rule: Manifest, direction: str, peer: Endpoint, own: str) -> bool:
        said = rule.get("from" if direction == "Ingress" else "to")
        return not said or any(self._is_named(each, peer, own) for each in said)

    def _is_named(self, said: Manifest, peer: Endpoint, own: str) -> bool:
        if "ipBlock" in said:
            return _is_in(said["ipBlock"], peer.address)
        if not peer.namespace:
            return False
        if "namespaceSelector" in said:
            labels = {_NAME_LABEL: peer.namespace, **self._namespaces.get(peer.namespace, {})}
            if not matches(said["namespaceSelector"], labels):
                return False
        elif peer.namespace != own:
            return False
        return "podSelector" not in said or matches(said["podSelector"], peer.labels)


def _directions(spec: Manifest) -> Iterable[str]:
    """Policies that do not say so hold for what comes in, and with egress rules for both."""
    usual = ["Ingress", "Egress"] if "egress" in spec else ["Ingress"]
    return list(spec.get("policyTypes", usual))


def _is_in(block: Manifest, address: str) -> bool:
    own = ipaddress.ip_address(address)
    return own in ipaddress.ip_network(block["cidr"]) and not any(
        own in ipaddress.ip_network(each) for each in block.get("except", [])
    )


def _is_port(said: list[Manifest] | None, target: Endpoint, port: tuple[int, str]) -> bool:
    """Named ports are those of the pod that is connected to, in both directions."""
    number, protocol = port
    if not said:
        return True
    for each in said:
        if each.get("protocol", "TCP") != protocol:
            continue
        said_first = each.get("port", number)
        first: int = target.ports.get(said_first, -1) if isinstance(said_first, str) else said_first
        if first <= number <= each.get("endPort", first):
            return True
    return False


def endpoints(cluster: Cluster) -> dict[str, Endpoint]:
    """One pod of every workload, by its name."""
    return {
        workload.name: Endpoint(workload.name, workload.namespace, workload.labels, workload.ports)
        for workload in cluster.workloads
    }
