"""The evaluator of NetworkPolicies against the rules that Kubernetes documents."""

from typing import Any

import pytest

from tests.packaging.k8s.manifests import Cluster, Manifest
from tests.packaging.k8s.network import Endpoint, Policies

WEB = Endpoint("web", "here", {"app": "web"}, {"http": 8080})
DATABASE = Endpoint("db", "here", {"app": "db"}, {"sql": 5432})
STRANGER = Endpoint("x", "there", {"app": "web"})
OUTSIDE = Endpoint("outside", address="203.0.113.7")

DENY: Manifest = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def cluster(*specs: Manifest) -> Policies:
    namespaces = [
        {"kind": "Namespace", "metadata": {"name": "here", "labels": {"team": "mill"}}},
        {"kind": "Namespace", "metadata": {"name": "there", "labels": {"team": "other"}}},
    ]
    policies: list[dict[str, Any]] = [
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": str(number), "namespace": "here"},
            "spec": spec,
        }
        for number, spec in enumerate(specs)
    ]
    return Policies(Cluster("test", (*namespaces, *policies)))


def to_database(*, peers: list[Manifest] | None = None, ports: Any = None) -> Manifest:
    rule: Manifest = {} if peers is None else {"from": peers}
    rule |= {} if ports is None else {"ports": ports}
    return {
        "podSelector": {"matchLabels": {"app": "db"}},
        "policyTypes": ["Ingress"],
        "ingress": [rule],
    }


def test_without_a_policy_everything_is_open() -> None:
    assert cluster().allow(WEB, DATABASE, 1)
    assert cluster().allow(OUTSIDE, DATABASE, 1)


def test_a_policy_without_rules_closes_both_ways_of_its_pods_and_of_no_others() -> None:
    policies = cluster(DENY)
    assert not policies.allow(WEB, DATABASE, 5432)
    assert not policies.allow(WEB, OUTSIDE, 443)
    assert not policies.allow(STRANGER, WEB, 8080)
    assert policies.allow(STRANGER, OUTSIDE, 443)


def test_policies_add_up_and_both_ends_must_agree() -> None:
    from_web: Manifest = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
    }
    into = to_database(peers=[{"podSelector": {"matchLabels": {"app": "web"}}}])
    assert cluster(DENY, from_web, into).allow(WEB, DATABASE, 5432)
    assert not cluster(DENY, from_web).allow(WEB, DATABASE, 5432)
    assert not cluster(DENY, into).allow(WEB, DATABASE, 5432)


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        ({"podSelector": {}}, {"web"}),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, {"web"}),
        ({"podSelector": {"matchLabels": {"app": "no"}}}, set()),
        ({"namespaceSelector": {}}, {"web", "x"}),
        ({"namespaceSelector": {"matchLabels": {"team": "other"}}}, {"x"}),
        (
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "there"}}},
            {"x"},
        ),
        (
            {
                "namespaceSelector": {"matchLabels": {"team": "other"}},
                "podSelector": {"matchLabels": {"app": "no"}},
            },
            set(),
        ),
        ({"ipBlock": {"cidr": "203.0.113.0/24"}}, {"outside"}),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}}, {"web", "x"}),
    ],
    ids=[
        "every pod of the own namespace",
        "pods by label",
        "nobody has the label",
        "every namespace",
        "a namespace by label",
        "a namespace by the label that all have",
        "namespace and pod in one peer",
        "an address",
        "an address taken out",
    ],
)
def test_who_a_peer_means(peer: Manifest, who: set[str]) -> None:
    policies = cluster(to_database(peers=[peer]))
    callers = (WEB, STRANGER, OUTSIDE)
    assert {each.name for each in callers if policies.allow(each, DATABASE, 5432)} == who


def test_a_rule_without_peers_means_everybody() -> None:
    policies = cluster(to_database(ports=[{"port": 5432}]))
    assert policies.allow(OUTSIDE, DATABASE, 5432)
    assert policies.allow(STRANGER, DATABASE, 5432)
    assert not policies.allow(WEB, DATABASE, 5433)


@pytest.mark.parametrize(
    ("said", "open_ports"),
    [
        ([{"port": 5432}], {5432}),
        ([{"port": "sql"}], {5432}),
        ([{"port": "http"}], set()),
        ([{"port": 5432, "endPort": 5433}], {5432, 5433}),
        ([{"protocol": "UDP", "port": 5432}], set()),
        ([{"protocol": "TCP"}], {5432, 5433, 5434}),
        (None, {5432, 5433, 5434}),
    ],
    ids=["number", "name", "a name the pod has not", "range", "UDP", "any of TCP", "any"],
)
def test_which_ports_a_rule_means(said: Any, open_ports: set[int]) -> None:
    policies = cluster(to_database(ports=said))
    asked = (5432, 5433, 5434)
    assert {port for port in asked if policies.allow(WEB, DATABASE, port)} == open_ports


def test_named_ports_of_egress_are_those_of_the_target() -> None:
    spec: Manifest = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "egress": [{"ports": [{"port": "sql"}]}],
        "policyTypes": ["Egress"],
    }
    assert cluster(spec).allow(WEB, DATABASE, 5432)
    assert not cluster(spec).allow(WEB, DATABASE, 5433)


def test_policy_types_follow_from_the_rules_where_nothing_is_said() -> None:
    closes_ingress: Manifest = {"podSelector": {}}
    assert cluster(closes_ingress).allow(WEB, OUTSIDE, 443)
    assert not cluster(closes_ingress).allow(OUTSIDE, WEB, 8080)
    closes_both: Manifest = {"podSelector": {}, "egress": []}
    assert not cluster(closes_both).allow(WEB, OUTSIDE, 443)
