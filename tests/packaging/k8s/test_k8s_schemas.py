"""Every manifest against the schemas of three releases of Kubernetes and of KEDA, strictly."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.k8s.conftest import CLUSTERS
from tests.packaging.k8s.manifests import Cluster, Manifest, namespace_of, title
from tests.packaging.k8s.strict_schemas import VERSIONS, NoSchemaError, closed, faults

WITHOUT_NAMESPACE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "StorageClass"}
ELSEWHERE = {"kube-system"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(cluster: Cluster, version: str) -> None:
    assert [fault for each in cluster.objects for fault in faults(each, version)] == []


def test_nothing_is_there_twice_and_everything_says_where_it_lives(cluster: Cluster) -> None:
    count = Counter((title(each), namespace_of(each)) for each in cluster.objects)
    assert [name for name, times in count.items() if times > 1] == []
    strays = [
        title(each)
        for each in cluster.objects
        if each["kind"] not in WITHOUT_NAMESPACE
        and namespace_of(each) not in {"millrace", *ELSEWHERE}
    ]
    assert strays == []


def _mutations(manifest: Manifest) -> list[Manifest]:
    """The same with an unknown field at the top, in its metadata or spec, and deep within."""
    found = []
    for place in _mappings(manifest):
        mutant = copy.deepcopy(manifest)
        inner: Any = mutant
        for key in place:
            inner = inner[key]
        inner["typo"] = "x"
        found.append(mutant)
    return found


_FREE = {
    "data", "stringData", "labels", "annotations", "matchLabels", "nodeSelector", "requests",
    "limits", "parameters", "hard",
}  # fmt: skip
"""Maps whose keys are ours to choose."""


def _mappings(node: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(node, dict):
        if place and place[-1] in _FREE:
            return []
        inner = [found for key, each in node.items() for found in _mappings(each, (*place, key))]
        return [place, *inner]
    if isinstance(node, list) and node:  # the others have the same schema
        return _mappings(node[0], (*place, 0))
    return []


def _is_open(manifest: Manifest, mutant: Manifest) -> bool:
    """Kubernetes' own part of a custom resource, a trigger's fields, and a Service's labels."""
    custom = "." in manifest["apiVersion"].partition("/")[0].removesuffix(".k8s.io")
    triggers = mutant.get("spec", {}).get("triggers", [])
    return (
        (custom and "typo" in mutant["metadata"])
        or any("typo" in each["metadata"] for each in triggers)
        or (manifest["kind"] == "Service" and "typo" in mutant["spec"]["selector"])
    )


def test_each_kind_s_validator_refuses_an_unknown_field_wherever_it_is(
    built: Callable[[str], Cluster],
) -> None:
    everything = [each for name in CLUSTERS for each in built(name).objects]
    one_of_each = {(each["apiVersion"], each["kind"]): each for each in everything}
    passed = [
        f"{title(each)}: {mutant}"
        for each in one_of_each.values()
        for mutant in _mutations(each)
        if not _is_open(each, mutant) and not faults(mutant, VERSIONS[0])
    ]
    assert passed == []


def test_wrong_types_and_missing_fields_are_refused(cluster: Cluster) -> None:
    deployment = copy.deepcopy(cluster.of("Deployment")[0])
    del deployment["spec"]["selector"]
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": "http"}]
    for version in VERSIONS:
        said = " ".join(faults(deployment, version))
        assert "'selector' is a required property" in said
        assert "'http' is not of type" in said


def test_a_kind_without_a_schema_is_an_error_and_no_pass() -> None:
    unknown = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}
    with pytest.raises(NoSchemaError):
        faults(unknown, VERSIONS[0])
    with pytest.raises(NoSchemaError):
        faults({**unknown, "apiVersion": "keda.sh/v1alpha1"}, VERSIONS[0])


def test_a_field_of_a_newer_kubernetes_is_refused_for_an_older_one() -> None:
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "x"},
    }
    with pytest.raises(NoSchemaError):
        faults(policy, VERSIONS[0])


def test_closing_a_schema_leaves_open_what_is_open_on_purpose() -> None:
    schema = {
        "type": "object",
        "properties": {
            "known": {"type": "object", "properties": {"a": {"type": "string"}}},
            "free": {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "x-kubernetes-preserve-unknown-fields": True,
            },
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "amount": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
    }
    found = closed(schema)
    assert found["additionalProperties"] is False
    assert found["properties"]["known"]["additionalProperties"] is False
    assert "additionalProperties" not in found["properties"]["free"]
    assert found["properties"]["map"]["additionalProperties"] == {"type": "string"}
    assert "additionalProperties" not in schema


def test_every_component_is_built_somewhere(checkout: Path) -> None:
    used: set[Path] = set()
    for name in CLUSTERS:
        used |= _components(checkout / "k8s" / "overlays" / name)
    components = checkout / "k8s" / "components"
    assert {file.parent for file in components.rglob("kustomization.yaml")} == used


def _components(folder: Path) -> set[Path]:
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    own = {(folder / each).resolve() for each in settings.get("components", [])}
    return own.union(*(_components(each) for each in own))
