"""What the scripts behind build-and-run take for granted of the overlays."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.k8s.manifests import Cluster

REPOSITORY = Path(__file__).parents[3]
ROWS = {
    row[0]: row
    for row in map(str.split, (REPOSITORY / "scripts/cluster/overlays").read_text().splitlines())
    if row[0] not in {"#", "*"}
}
PORTS = {"open-webui": 30801, "master": 30800, "n8n": 30802, "grafana": 30803}


@pytest.mark.parametrize("overlay", ROWS)
def test_the_images_that_are_built_are_those_that_run(
    built: Callable[[str], Cluster], overlay: str
) -> None:
    cluster = built(overlay)
    ours = {container.image for container in cluster.containers if container.is_ours}
    names = {image.removeprefix("millrace/").partition(":")[0] for image in ours}
    # The master's image runs `millrace k8s` as well.
    assert names | {"master"} == set(ROWS[overlay][5].split(","))


@pytest.mark.parametrize("overlay", ROWS)
def test_what_the_plan_names_is_there(built: Callable[[str], Cluster], overlay: str) -> None:
    cluster = built(overlay)
    assert cluster.find("Job", "migrations")
    master = cluster.find("Service", "master")
    assert master
    assert 8000 in {port["port"] for port in master["spec"]["ports"]}
    assert cluster.find("Service", "open-webui")
    assert cluster.find("Secret", "api-key")


@pytest.mark.parametrize("overlay", ROWS)
def test_the_doors_that_are_shown_are_node_ports(
    built: Callable[[str], Cluster], overlay: str
) -> None:
    services = built(overlay).of("Service")
    doors = {
        service["metadata"]["name"]: port["nodePort"]
        for service in services
        for port in service["spec"]["ports"]
        if "nodePort" in port
    }
    ways = ROWS[overlay][4].split(",")
    shown = {"doors": set(PORTS), "nodes": {"open-webui", "master"}}
    expected = set().union(*(names for way, names in shown.items() if way in ways))
    assert doors == {name: PORTS[name] for name in expected}


def test_the_components_that_help_names_for_logs_exist(built: Callable[[str], Cluster]) -> None:
    text = " ".join((REPOSITORY / "build-and-run.sh").read_text().replace("#", " ").split())
    named = re.search(r"what a component says: ([a-z0-9, -]+?) --", text)
    assert named
    labels = {workload.labels.get("app.kubernetes.io/name") for workload in
              built("docker-desktop").workloads}  # fmt: skip
    assert set(named[1].split(", ")) <= labels
