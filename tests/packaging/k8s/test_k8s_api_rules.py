"""The API server's own rules: what no schema says and only a cluster would refuse."""

import copy
from typing import Any

import pytest

from tests.packaging.k8s.api_rules import refused
from tests.packaging.k8s.manifests import Cluster


def test_nothing_would_be_refused(cluster: Cluster) -> None:
    assert list(refused(cluster)) == []


DEPLOYMENT: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "x"},
    "spec": {
        "strategy": {"type": "Recreate"},
        "template": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {
                "containers": [
                    {
                        "name": "x",
                        "image": "x:1",
                        "ports": [{"name": "http", "containerPort": 1}],
                        "env": [{"name": "A", "value": "1"}],
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        },
    },
}
SERVICE: dict[str, Any] = {
    "kind": "Service",
    "metadata": {"name": "x"},
    "spec": {"ports": [{"name": "http", "port": 80}]},
}


def _refused(manifest: dict[str, Any]) -> str:
    return "; ".join(refused(Cluster("test", (manifest,))))


def test_the_rules_take_what_is_right() -> None:
    assert _refused(DEPLOYMENT) == _refused(SERVICE) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec["containers"].append(spec["containers"][0]), "two containers are x"),
        (lambda spec: spec["volumes"].append(spec["volumes"][0]), "two volumes are tmp"),
        (lambda spec: spec["volumes"][0].update(configMap={"name": "y"}), "of several kinds"),
        (lambda spec: spec["containers"][0].update(name="X_1"), "its name is none"),
        (lambda spec: spec["containers"][0]["env"].append({"name": "A"}), "two variables are A"),
        (lambda spec: spec["containers"][0]["env"].append({"name": "a-b"}), "is no variable"),
        (
            lambda spec: spec["containers"][0]["ports"][0].update(name="a-port-of-the-pod"),
            "is no name of a port",
        ),
        (
            lambda spec: spec["containers"][0].update(resources={"limits": {"memory": "1 GB"}}),
            "is no quantity",
        ),
        (
            lambda spec: spec.update(
                initContainers=[{"name": "i", "image": "i:1", "readinessProbe": {}}]
            ),
            "what only prepares has no readinessProbe",
        ),
    ],
)
def test_a_pod_that_would_be_refused_is_refused_here(change: Any, said: str) -> None:
    found = copy.deepcopy(DEPLOYMENT)
    change(found["spec"]["template"]["spec"])
    assert said in _refused(found)


@pytest.mark.parametrize(
    ("base", "change", "said"),
    [
        (DEPLOYMENT, {"strategy": {"type": "Recreate", "rollingUpdate": {}}}, "no rollingUpdate"),
        (
            DEPLOYMENT,
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            "never be replaced",
        ),
        (SERVICE, {"ports": [{"port": 80}, {"port": 81}]}, "several ports need names"),
        (SERVICE, {"ports": [{"port": 80, "nodePort": 30800}]}, "only NodePort has one"),
        (
            SERVICE,
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 8000}]},
            "is no port of nodes",
        ),
    ],
)
def test_an_object_that_would_be_refused_is_refused_here(
    base: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    found = copy.deepcopy(base)
    found["spec"] |= change
    assert said in _refused(found)
