"""An overlay's folder, read and rendered: paths with their text. Nothing is written here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from millrace import models_file
from millrace.k8s import budget, cluster, versions
from millrace.k8s.cluster import Cluster, Engine
from millrace.k8s.labels import Manifest, to_yaml
from millrace.k8s.placement import OLLAMA_URL, Placed, place
from millrace.k8s.pools import claim, pull_job
from millrace.k8s.problems import Unfit
from millrace.k8s.scaled_objects import scaled_object, trigger_authentication
from millrace.k8s.workers import deployment
from queue_schemas.registry import Registry

MODELS: Final = "models"
VERSIONS: Final = Path("images") / "versions.env"
_COMPONENT: Final = Path("k8s") / "components" / "versions" / "kustomization.yaml"
_OF_MODELS: Final = "cluster.yaml, models.yaml and versions.env"
_OF_VERSIONS: Final = "images/versions.env"


@dataclass(frozen=True)
class Overlay:
    """What an overlay says, checked."""

    folder: Path
    root: Path
    """Of the checkout."""
    registry: Registry
    cluster: Cluster
    versions: Mapping[str, str]


def read(folder: Path) -> Overlay:
    """Read `k8s/overlays/NAME`. Raises `Unfit` with everything that is wrong with its files."""
    here = folder.absolute()
    if here.parts[-3:-1] != ("k8s", "overlays") or not here.is_dir():
        raise Unfit([f"{folder} is not a folder of k8s/overlays. Give --overlay one that is."])
    root = here.parents[2]
    problems: list[str] = []
    found_cluster = registry = found_versions = None
    try:
        found_cluster = cluster.load(folder / "cluster.yaml")
    except Unfit as error:
        problems += error.problems
    try:
        registry = read_models(folder / "models.yaml", found_cluster)
    except Unfit as error:
        problems += error.problems
    try:
        found_versions = versions.load(root / VERSIONS)
    except Unfit as error:
        problems += error.problems
    if found_cluster is None or registry is None or found_versions is None:
        raise Unfit(problems)
    return Overlay(folder, root, registry, found_cluster, found_versions)


def read_models(path: Path, of: Cluster | None = None) -> Registry:
    """The registry as it is in pods, whatever is set on this machine. Raises `Unfit`."""
    beside = of is None or of.engine is Engine.OLLAMA
    try:
        return models_file.load(path, {"OLLAMA_HOST": OLLAMA_URL} if beside else {})
    except models_file.ModelsFileError as error:
        raise Unfit(list(error.problems)) from error


def placed(overlay: Overlay) -> list[Placed]:
    """Where every model goes. Raises `Unfit` if one cannot be placed or they do not fit."""
    found, problems = place(overlay.registry, overlay.cluster)
    problems = [*problems, *budget.over_budget(found)]
    if problems:
        raise Unfit(problems)
    return found


def render(overlay: Overlay) -> dict[Path, str]:
    """Every rendered file with its text. Raises `Unfit`."""
    found = placed(overlay)
    models: dict[str, list[Manifest]] = {}
    for each in found:
        made = [deployment(each, overlay.cluster), scaled_object(each, overlay.cluster)]
        models[f"{each.name}.yaml"] = made
    for pool in overlay.cluster.pools:
        its = [each.model for each in found if each.pool == pool]
        job = pull_job(pool, its, overlay.cluster, overlay.versions[versions.OLLAMA])
        models[f"pool-{pool.name}.yaml"] = [claim(pool, overlay.cluster), *([job] if job else [])]
    models["trigger-authentication.yaml"] = [trigger_authentication()]
    models["kustomization.yaml"] = [
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "millrace",
            "resources": sorted(models),
        }
    ]
    folder = overlay.folder / MODELS
    files = {folder / name: to_yaml(made, _OF_MODELS) for name, made in models.items()}
    tags = to_yaml([versions.component(overlay.versions)], _OF_VERSIONS)
    return {**files, overlay.root / _COMPONENT: tags}
