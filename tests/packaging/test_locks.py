"""The lock files satisfy pyproject.toml, agree with each other and name no index."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LOCKS = {
    "requirements.lock": ("dev", True),
    "requirements-local.lock": ("local", True),
    "requirements-bench.lock": ("bench", False),
    **{
        f"images/locks/{target}.lock": (target, True) for target in ("worker", "celery", "embedder")
    },
}
every_lock = pytest.mark.parametrize("name", LOCKS)


def locked(name: str) -> dict[str, str]:
    text = (REPOSITORY / name).read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


def wanted(extra: str) -> list[Requirement]:
    """The requirements of an extra, through the extras of ours that it names."""
    found = []
    for line in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == "millrace":
            for inner in sorted(requirement.extras):
                found += wanted(inner)
        elif not requirement.marker or requirement.marker.evaluate(default_environment()):
            found.append(requirement)
    return found


@every_lock
def test_a_lock_satisfies_the_project(name: str) -> None:
    extra, ours = LOCKS[name]
    requirements = wanted(extra)
    if ours:
        requirements += [Requirement(line) for line in PROJECT["dependencies"]]
    pins = locked(name)
    unmet = [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(
            pins.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert unmet == [], "run `make lock`"


def test_what_runs_and_what_is_tested_have_the_same_versions() -> None:
    small, large = locked("requirements-local.lock"), locked("requirements.lock")
    assert {package: large.get(package) for package in small} == small


@pytest.mark.parametrize("target", ["worker", "celery", "embedder", "build"])
def test_images_have_the_versions_that_are_tested(target: str) -> None:
    small, large = locked(f"images/locks/{target}.lock"), locked("requirements.lock")
    if target in {"embedder", "build"}:  # what only they have; numpy has one for each Python
        small = {package: small[package] for package in small.keys() & large.keys() - {"numpy"}}
    assert {package: large.get(package) for package in small} == small


def test_the_embedder_has_the_torch_that_it_was_tested_with() -> None:
    tested = locked("requirements-embedder.txt")
    both = locked("images/locks/embedder.lock") | locked("images/locks/torch.lock")
    assert tested.items() <= both.items()
    assert "torch" not in locked("images/locks/embedder.lock")


@every_lock
def test_every_package_is_locked_by_hash_and_no_index_is_named(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--index|--find-links|^-e ", text, re.MULTILINE)
