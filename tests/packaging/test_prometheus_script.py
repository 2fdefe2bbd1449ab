"""scripts/ensure-prometheus: what it takes, and what it does where there is nothing to take."""

import os
from pathlib import Path

import pytest

from tests.packaging.bare_machine import REPOSITORY, Machine

SAYS = 'echo "{}, version {}.1+ds (branch: x, revision: y)"'
DPKG = """
mkdir -p "$3/usr/bin"
for each in prometheus promtool; do
  printf '#!/usr/bin/env bash\\necho "%s, version 2.42.0+ds"\\n' "$each" > "$3/usr/bin/$each"
  chmod 755 "$3/usr/bin/$each"
done
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "ensure-prometheus")


def programs(machine: Machine) -> Path:
    return machine.checkout / ".prometheus" / "bin"


def version(machine: Machine, program: str) -> str:
    return machine.says(str(programs(machine) / program), "--version").split(" (")[0]


def has_both(machine: Machine, number: str) -> None:
    for name in ("prometheus", "promtool"):
        machine.has(name, SAYS.format(name, number))


def test_programs_of_the_path_are_taken(machine: Machine) -> None:
    has_both(machine, "3.10")
    for _ in range(2):
        assert machine.run().returncode == 0
        assert version(machine, "promtool") == "promtool, version 3.10.1+ds"
        assert version(machine, "prometheus") == "prometheus, version 3.10.1+ds"


@pytest.mark.parametrize("number", ["2.31", "2.45"])
def test_what_is_old_or_missing_is_said_loudly_and_is_no_failure(
    machine: Machine, number: str
) -> None:
    has_both(machine, number)
    if number == "2.45":
        (machine.path / "promtool").unlink()
    done = machine.run()
    assert done.returncode == 0
    assert "will be SKIPPED: no Prometheus that is new enough is on the path" in done.stderr
    assert (machine.checkout / ".prometheus" / "why-not").exists()
    assert not programs(machine).exists()


def test_debians_package_is_unpacked_and_asked_for_once(machine: Machine) -> None:
    seen = machine.is_debian(DPKG)
    done = machine.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert version(machine, "prometheus") == "prometheus, version 2.42.0+ds"
    assert "http://mirror.example/debian/ bookworm main" in seen.read_text()
    seen.unlink()
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not seen.exists()
    left = {file.name for file in machine.checkout.iterdir()}
    assert left == {"scripts", "os-release", ".prometheus"}


def test_a_mirror_that_cannot_be_reached_is_said(machine: Machine) -> None:
    machine.is_debian(DPKG, update="echo 'E: Failed to fetch' >&2; exit 100")
    done = machine.run()
    assert done.returncode == 0
    reason = (machine.checkout / ".prometheus" / "why-not").read_text()
    assert reason == "apt could not get it: E: Failed to fetch\n"
    assert not list(machine.checkout.glob(".prometheus.*"))


def test_no_host_stands_in_the_script() -> None:
    script = REPOSITORY / "scripts" / "ensure-prometheus"
    assert "http" not in script.read_text()
    assert os.access(script, os.X_OK)
