"""build-and-run.ps1 and build-and-run.sh: one plan, told truly by a dry run, and run as told."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from tests.doubles.cluster_programs import REPOSITORY, Machine

OVERLAYS = ("docker-desktop", "k3s-gpu", "k3s-arm64-cpu")
STEPS = ("check", "images", "secrets", "keda", "apply", "wait", "smoke", "urls")
SHELL, POWERSHELL = "build-and-run.sh", "build-and-run.ps1"
every_script = pytest.mark.parametrize("script", [SHELL, POWERSHELL])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def commands(shown: str) -> list[str]:
    """The words of the commands in a dry run, as the doubles record them."""
    lines = [line[2:] for line in shown.splitlines() if re.match(r"  (docker|kubectl|curl) ", line)]
    return [" ".join(shlex.split(line)) for line in lines]


def steps(shown: str) -> list[str]:
    return [line for line in shown.splitlines()[1:] if re.fullmatch(r"[a-z]+", line)]


@pytest.mark.parametrize(
    ("overlay", "options"),
    [
        *((overlay, "") for overlay in OVERLAYS),
        *((overlay, "--registry lab:5000/team --context lab") for overlay in OVERLAYS),
        ("k3s-gpu", "--upgrade"),
        ("docker-desktop", "--only apply,images --upgrade"),
        ("docker-desktop", "--only urls"),
        ("docker-desktop", "--down"),
        ("k3s-gpu", "--down --keep-data --yes"),
        ("docker-desktop", "--status"),
        ("k3s-arm64-cpu", "--logs worker"),
    ],
)
def test_both_scripts_have_the_same_plan(machine: Machine, overlay: str, options: str) -> None:
    plans = []
    for script in (SHELL, POWERSHELL):
        ended = machine.run(script, "--overlay", overlay, "--dry-run", *options.split())
        assert ended.code == 0, ended.shown
        plans.append(re.sub(r"--user \d+:\d+", "--user UID:GID", ended.shown))
    assert plans[0] == plans[1]
    assert commands(plans[0]) or "urls" in options
    assert machine.calls() == []


@every_script
def test_a_dry_run_needs_neither_docker_nor_kubectl(machine: Machine, script: str) -> None:
    for program in ("docker", "kubectl", "curl"):
        (machine.path / program).unlink()
    ended = machine.run(script, "--dry-run")
    assert ended.code == 0
    assert steps(ended.shown) == list(STEPS)


@every_script
@pytest.mark.parametrize(
    "options",
    [
        ("--upgrade",),
        ("--overlay", "k3s-gpu", "--context", "lab", "--registry", "lab:5000/team"),
    ],
    ids=["docker desktop", "registry"],
)
def test_what_runs_is_what_a_dry_run_says(
    machine: Machine, script: str, options: tuple[str, ...]
) -> None:
    planned = commands(machine.run(script, *options, "--dry-run").shown)
    ended = machine.run(script, *options)
    assert ended.code == 0, ended.shown
    (each,) = (command for command in planned if "WORKLOAD" in command)
    place = planned.index(each)
    names = ("statefulset.apps/rabbitmq", "deployment.apps/master")
    planned[place : place + 1] = [each.replace("WORKLOAD", name) for name in names]
    # That one goes on in the background: when it is seen is the machine's affair.
    aside = [command for command in planned if " port-forward " in command]
    assert len(aside) == 1
    planned.remove(aside[0])
    assert [call for call in machine.calls() if call != aside[0]] == planned


@every_script
def test_a_second_run_installs_no_keda_and_ends_as_well(machine: Machine, script: str) -> None:
    ended = machine.run(script, "--only", "keda,apply")
    assert ended.code == 0
    assert [call for call in machine.calls() if "keda-2" in call]
    machine.play({}, keda="2.20.2")
    ended = machine.run(script, "--only", "keda,apply")
    assert ended.code == 0
    assert "2.20.2 is there" in ended.shown
    assert not [call for call in machine.calls() if "keda-2" in call]


@every_script
@pytest.mark.parametrize(
    ("there", "options", "installed"),
    [("2.18.0", (), False), ("2.18.0", ("--upgrade",), True), ("2.31.0", ("--upgrade",), False)],
)
def test_another_keda_is_only_renewed_when_asked_and_older(
    machine: Machine, script: str, there: str, options: tuple[str, ...], installed: bool
) -> None:
    machine.play({}, keda=there)
    ended = machine.run(script, "--only", "keda", *options)
    assert ended.code == 0
    assert bool([call for call in machine.calls() if "keda-2" in call]) is installed
    assert (f"KEDA {there} is there and stays" in ended.shown) is not installed


@every_script
def test_every_call_to_a_cluster_names_the_context(machine: Machine, script: str) -> None:
    ended = machine.run(script, "--overlay", "k3s-gpu", "--context", "lab", "--dry-run")
    calls = [call for call in commands(ended.shown) if call.startswith("kubectl")]
    local = ("kubectl version --client", "kubectl config", "kubectl kustomize")
    assert {call.split()[2] for call in calls if not call.startswith(local)} == {"lab"}


@every_script
def test_the_api_key_is_in_no_command_and_in_no_file_afterwards(
    machine: Machine, script: str
) -> None:
    ended = machine.run(script, "--only", "smoke")
    assert 'A "mill".' in ended.shown
    assert not [call for call in machine.calls() if "mr-secret" in call]
    assert not list(machine.checkout.rglob("smoke.curl"))


@every_script
def test_nodes_that_see_no_images_get_an_archive_and_a_question(
    machine: Machine, script: str
) -> None:
    options = ("--overlay", "k3s-arm64-cpu", "--context", "lab", "--only", "images,apply")
    ended = machine.run(script, *options, given="n\n")
    assert ended.code == 1
    assert "sudo k3s ctr images import" in ended.shown
    assert "Stopped before the cluster was touched" in ended.shown
    archive = ".millrace/millrace-0.1.0-k3s-arm64-cpu.tar"
    assert [call for call in machine.calls() if f"docker save --output {archive}" in call]
    assert not [call for call in machine.calls() if "apply" in call]
    assert machine.run(script, *options, given="y\n").code == 0


@every_script
def test_a_registry_is_put_into_the_images_of_the_overlay(machine: Machine, script: str) -> None:
    options = ("--overlay", "k3s-gpu", "--context", "lab", "--registry", "lab:5000/team/")
    machine.run(script, *options, "--only", "apply")
    written = machine.checkout / ".millrace" / "cluster" / "k3s-gpu" / "kustomization.yaml"
    lines = written.read_text().splitlines()
    assert "  - ../../../k8s/overlays/k3s-gpu" in lines
    named = dict(pairwise(line.strip() for line in lines))
    assert named["- name: millrace/worker"] == "newName: lab:5000/team/millrace/worker"


@every_script
@pytest.mark.parametrize(
    ("given", "options", "removed"),
    [
        ("", (), []),
        ("n", (), []),
        ("y", (), ["delete namespace millrace"]),
        ("", ("--yes",), ["delete namespace millrace"]),
        ("y", ("--keep-data",), ["delete scaledobject", "delete deployment,statefulset"]),
    ],
)
def test_removing_asks_first(
    machine: Machine, script: str, given: str, options: tuple[str, ...], removed: list[str]
) -> None:
    ended = machine.run(script, "--down", *options, given=f"{given}\n")
    deleted = [call for call in machine.calls() if " delete " in call]
    assert len(deleted) == len(removed)
    assert all(words in call for words, call in zip(removed, deleted, strict=True))
    assert ended.code == (0 if removed else 1)
    assert ("Nothing was removed" in ended.shown) is not bool(removed)


@every_script
def test_removing_from_another_cluster_than_the_current_one_is_refused(
    machine: Machine, script: str
) -> None:
    machine.play({"config current-context": (0, "lab")})
    ended = machine.run(script, "--down", "--yes")
    assert ended.code == 1
    assert "kubectl's context is lab" in ended.shown
    assert not [call for call in machine.calls() if " delete " in call]


@every_script
def test_status_and_logs_only_look(machine: Machine, script: str) -> None:
    machine.play({"get pods": (0, "master-1 1/1 Running"), " logs ": (0, "[pod/master-1] hello")})
    assert "master-1 1/1 Running" in machine.run(script, "--status").shown
    assert len(machine.calls()) == 3
    assert "hello" in machine.run(script, "--logs", "master").shown
    (call,) = machine.calls()
    assert "app.kubernetes.io/name=master" in call


@every_script
def test_some_steps_alone_check_what_they_need(machine: Machine, script: str) -> None:
    ended = machine.run(script, "--only", "images")
    assert steps(ended.shown) == ["check", "images"]
    assert not [call for call in machine.calls() if call.startswith("kubectl")]
    machine.run(script, "--only", "wait")
    assert [call for call in machine.calls() if "--raw /version" in call]
    assert not [call for call in machine.calls() if call.startswith("docker")]


def test_every_option_is_explained_by_help(machine: Machine) -> None:
    shown = machine.run(SHELL, "--help").shown
    text = (REPOSITORY / SHELL).read_text()
    options = set(re.findall(r"^ +(?:\| )?(--[a-z-]+)\)", text, re.MULTILINE))
    options |= {"--overlay", "--context", "--only", "--registry", "--logs"}
    assert not {option for option in options - {"--help"} if option not in shown}
    for step in STEPS:
        assert re.search(rf"^  {step} +\S", shown, re.MULTILINE)
