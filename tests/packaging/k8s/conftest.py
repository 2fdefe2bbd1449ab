"""Every overlay, built once in each process, from a copy with secrets of its own."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from millrace import cli
from tests.packaging.k8s.manifests import Cluster

REPOSITORY = Path(__file__).parents[3]
BUILD = REPOSITORY / ".kustomize" / "build"
OVERLAYS = sorted(path.parent.name for path in REPOSITORY.glob("k8s/overlays/*/cluster.yaml"))
VARIANTS = {
    "k3s-gpu-elsewhere": (
        "k3s-gpu",
        ["supabase-external", "documents-from-the-web", "pod-deletion-cost", "storage-longhorn"],
    ),
    "k3s-arm64-cpu-watched": ("k3s-arm64-cpu", ["service-monitors"]),
}
"""Overlays with the components that none of ours has. The last one restores a backup as well."""
CLUSTERS = [*OVERLAYS, *VARIANTS]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What of the repository an overlay is built from, with secrets that nobody uses."""
    if not BUILD.exists():
        why_not = BUILD.with_name("why-not")
        known = why_not.read_text("utf-8").strip() if why_not.exists() else "nobody looked for it"
        pytest.skip(f"there is no kustomize: {known}. scripts/ensure-kustomize says what to do")
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(
        REPOSITORY / "k8s", folder / "k8s", ignore=shutil.ignore_patterns("secrets", "backups")
    )
    (folder / "images").mkdir()
    shutil.copy(REPOSITORY / "images" / "versions.env", folder / "images")
    for name in OVERLAYS:
        assert cli.run(["k8s", "secrets", "--overlay", str(folder / "k8s/overlays" / name)]) == 0
    for name, (overlay, components) in VARIANTS.items():
        _write_variant(folder / "k8s" / "overlays", name, overlay, components)
    return folder


def _write_variant(overlays: Path, name: str, overlay: str, components: list[str]) -> None:
    """As somebody writes an overlay of his own: a copy with more components, his own address."""
    shutil.copytree(overlays / overlay, overlays / name)
    file = overlays / name / "kustomization.yaml"
    settings = yaml.safe_load(file.read_text("utf-8"))
    versions = settings["components"].pop()
    more = [f"../../components/{each}" for each in components]
    settings["components"] += [*more, versions]
    if "service-monitors" in components:
        settings["resources"].append("../../restore")
    file.write_text(yaml.safe_dump(settings), "utf-8")
    if "supabase-external" in components:
        for secrets in (overlays / name / "secrets").glob("*.env"):
            text = secrets.read_text("utf-8")
            secrets.write_text(re.sub(r"@postgres\b", "@db.project.example", text), "utf-8")


def _build(folder: Path) -> str:
    done = subprocess.run(
        [str(BUILD), str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    # Deprecated fields, patches that hit nothing: kustomize only mentions them.
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Cluster]:
    """Builds each overlay once, however many files and processes of one run ask for it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    @cache
    def build(name: str) -> Cluster:
        file = shared / f"built-{name}.yaml"
        if not file.exists():
            folder: Path = request.getfixturevalue("checkout") / "k8s" / "overlays" / name
            own = folder / "built.yaml"
            own.write_text(_build(folder), "utf-8")
            own.replace(file)  # at once: another process may be reading
        return Cluster(name, tuple(yaml.load_all(file.read_text("utf-8"), yaml.CSafeLoader)))

    return build


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(request: pytest.FixtureRequest, built: Callable[[str], Cluster]) -> Cluster:
    """What `kubectl apply -k` of an overlay would give to a cluster."""
    return built(request.param)
