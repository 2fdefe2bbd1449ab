"""scripts/ensure-kustomize: what it takes, and what it does where there is nothing to take."""

import os
from pathlib import Path

import pytest

from tests.packaging.bare_machine import REPOSITORY, Machine


def build(machine: Machine) -> Path:
    return machine.checkout / ".kustomize" / "build"


def built(machine: Machine, folder: str) -> str:
    return machine.says(str(build(machine)), folder)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "ensure-kustomize")


KUBECTL = """case "$1" in
  version) echo "Client Version: v{}.4-vendor" ;;
  *) echo "kubectl $@" ;;
esac"""
KUSTOMIZE = 'case "$1" in version) echo "v{}.0" ;; *) echo "kustomize $@" ;; esac'


def test_a_kustomize_of_the_path_is_taken(machine: Machine) -> None:
    machine.has("kustomize", KUSTOMIZE.format("5.10"))
    machine.has("kubectl", KUBECTL.format("1.35"))
    assert machine.run().returncode == 0
    assert built(machine, "a folder") == "kustomize build a folder"


def test_a_kubectl_is_taken_where_kustomize_is_old_or_missing(machine: Machine) -> None:
    machine.has("kustomize", KUSTOMIZE.format("5.2"))
    machine.has("kubectl", KUBECTL.format("1.29"))
    assert machine.run().returncode == 0
    assert built(machine, "a folder") == "kubectl kustomize a folder"


def test_an_old_kubectl_is_not_taken(machine: Machine) -> None:
    machine.has("kubectl", KUBECTL.format("1.20"))
    done = machine.run()
    assert done.returncode == 0
    assert "will be skipped" in done.stderr
    assert "kubectl 1.29 or newer" in done.stderr
    assert not build(machine).exists()


def test_what_is_gone_is_not_believed_in(machine: Machine) -> None:
    machine.has("kubectl", KUBECTL.format("1.33"))
    machine.run()
    (machine.path / "kubectl").unlink()
    assert build(machine).exists()
    machine.run()
    assert not build(machine).exists()


def test_only_debian_has_the_package(machine: Machine) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        machine.has(tool, "echo called >&2; exit 9")
    machine.is_called('ID=ubuntu\nNAME="Some Ubuntu"\n')
    done = machine.run()
    assert done.returncode == 0
    assert "Some Ubuntu has no package of it" in done.stderr
    assert "called" not in done.stderr


DPKG = """
mkdir -p "$3/usr/bin"
printf '#!/usr/bin/env bash\\necho "own $*"\\n' > "$3/usr/bin/kustomize"
chmod 755 "$3/usr/bin/kustomize"
"""


def debian(machine: Machine, update: str = "true") -> Path:
    return machine.is_debian(DPKG, update)


def test_debians_package_is_unpacked_into_the_checkout_and_nowhere_else(machine: Machine) -> None:
    seen = debian(machine)
    done = machine.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert built(machine, "a folder") == "own build a folder"
    settings = dict(
        line.split("=", 1) for line in seen.read_text().splitlines() if line.startswith("Dir::")
    )
    for name in ("Etc::sourcelist", "State", "State::lists", "State::status", "Cache"):
        assert settings[f"Dir::{name}"].startswith(str(machine.checkout)), name
    assert settings["Dir::Etc::sourceparts"] == "-"
    assert "http://mirror.example/debian/ trixie main" in seen.read_text()
    left = {file.name for file in machine.checkout.iterdir()}
    assert left == {"scripts", "os-release", "apt-arguments", ".kustomize"}


def test_the_second_time_it_asks_nobody(machine: Machine) -> None:
    seen = debian(machine)
    machine.run()
    seen.unlink()
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not seen.exists()
    assert built(machine, "a folder") == "own build a folder"


def test_a_mirror_that_cannot_be_reached_is_said_and_is_no_failure(machine: Machine) -> None:
    debian(machine, update="echo 'E: Failed to fetch' >&2; exit 100")
    done = machine.run()
    assert done.returncode == 0
    assert "apt could not get it: E: Failed to fetch" in done.stderr
    reason = build(machine).with_name("why-not").read_text()
    assert reason == "apt could not get it: E: Failed to fetch\n"
    assert not build(machine).exists()
    assert not list(machine.checkout.glob(".kustomize.*"))


def test_no_host_stands_in_the_script() -> None:
    for name in ("ensure-kustomize", "debian-package"):
        text = (REPOSITORY / "scripts" / name).read_text()
        assert "http" not in text.replace("Acquire::http", "")
    assert os.access(REPOSITORY / "scripts" / "ensure-kustomize", os.X_OK)
