"""Names: whatever a manifest refers to is there, under that name, with that key and port."""

import copy
import re

import pytest

from tests.packaging.k8s.conftest import REPOSITORY
from tests.packaging.k8s.manifests import Cluster, Manifest, title
from tests.packaging.k8s.references import missing, unused

LEFT_OVER = {"k3s-gpu-elsewhere": {"Secret/postgres: nothing uses it"}}
"""By cluster. Where Postgres is elsewhere, its administrator's password is nobody's."""
WITHOUT_PODS = {"NetworkPolicy/pull-models: it selects no pods"}
"""Where the engine is outside of the cluster nothing is pulled."""
LONGEST = {"Service": 63, "Deployment": 63, "StatefulSet": 52, "CronJob": 52, "Job": 63}
"""A pod's name is a label of 63 characters; controllers add to it."""
TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")


def test_everything_that_is_named_is_there(cluster: Cluster) -> None:
    assert set(missing(cluster)) - WITHOUT_PODS == set()


def test_nothing_is_left_over(cluster: Cluster) -> None:
    assert set(unused(cluster)) == LEFT_OVER.get(cluster.name, set())


def test_names_are_short_enough(cluster: Cluster) -> None:
    long = [
        title(each)
        for each in cluster.objects
        if len(each["metadata"]["name"]) > LONGEST.get(each["kind"], 253)
    ]
    assert long == []
    workers = [each.name for each in cluster.workloads if each.name.startswith("worker-")]
    assert all(len(name) <= 54 for name in workers), "KEDA puts keda-hpa- before it"


def test_every_image_has_a_tag_of_the_one_place_and_no_host(cluster: Cluster) -> None:
    lines = (REPOSITORY / "images" / "versions.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    known = {value.strip().removeprefix("v") for value in settings.values()}
    for container in cluster.containers:
        name, _, tag = container.spec["image"].rpartition(":")
        assert name, f"{container}: {tag} has no tag"
        assert TAG.match(tag), f"{container}: {tag}"
        assert tag != "latest"
        assert tag.removeprefix("v") in known, f"{container}: {tag} is not in versions.env"
        assert "." not in name.split("/")[0], f"{container}: {name} names a host"
        assert container.spec.get("imagePullPolicy", "IfNotPresent") == "IfNotPresent"


def _change(cluster: Cluster, kind: str, name: str, change: Manifest) -> Cluster:
    objects = [copy.deepcopy(each) for each in cluster.objects]
    for each in objects:
        if (each["kind"], each["metadata"]["name"]) == (kind, name):
            each["spec"] |= change
    return Cluster("changed", tuple(objects))


@pytest.mark.parametrize(
    ("kind", "name", "change", "said"),
    [
        ("Service", "master", {"selector": {"app": "x"}}, "Service/master: it selects no pods"),
        ("Service", "master", {"ports": [{"port": 8000, "targetPort": "x"}]}, "has no port x"),
        ("Deployment", "master", {"selector": {"matchLabels": {"a": "b"}}}, "its own pods"),
        ("NetworkPolicy", "master", {"podSelector": {"matchLabels": {"a": "b"}}}, "no pods"),
    ],
)
def test_what_leads_nowhere_is_found(
    cluster: Cluster, kind: str, name: str, change: Manifest, said: str
) -> None:
    assert any(said in fault for fault in missing(_change(cluster, kind, name, change)))


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "PersistentVolumeClaim", "ServiceAccount"])
def test_whatever_is_taken_away_is_missed(cluster: Cluster, kind: str) -> None:
    idle = set(unused(cluster))
    for each in cluster.of(kind):
        rest = Cluster("less", tuple(other for other in cluster.objects if other is not each))
        if f"{title(each)}: nothing uses it" not in idle:
            assert any(each["metadata"]["name"] in fault for fault in missing(rest)), title(each)
