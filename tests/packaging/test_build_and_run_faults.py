"""What is wrong is said with its remedy, before anything is applied; by both scripts."""

from pathlib import Path

import pytest

from tests.doubles.cluster_programs import Machine

# Words of calls that change a cluster.
CHANGES = (" apply ", " delete ", " rollout restart ")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(params=["build-and-run.sh", "build-and-run.ps1"])
def script(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def changes(machine: Machine) -> list[str]:
    return [call for call in machine.calls() if any(change in call for change in CHANGES)]


FAULTS = {
    "docker is not running": (
        {"docker version": (1, "Cannot connect to the Docker daemon")},
        ("Docker's engine does not answer", "Start Docker Desktop"),
    ),
    "kubernetes is switched off": (
        {"config get-contexts": (0, "lab")},
        ("Kubernetes is not switched on", "Settings > Kubernetes > Enable Kubernetes"),
    ),
    "kubernetes still starts": (
        {"get --raw /version": (1, "connection refused")},
        ("docker-desktop does not answer", "kubectl --context docker-desktop get nodes"),
    ),
    "another context": (
        {"config current-context": (0, "lab")},
        ("context is lab", "use-context docker-desktop", "-context docker-desktop"),
    ),
    "no context": (
        {"config current-context": (1, "error: current-context is not set")},
        ("context is not set", "use-context docker-desktop"),
    ),
    "old kubernetes": (
        {"get --raw /version": (0, '{"gitVersion": "v1.27.9"}')},
        ("Kubernetes 1.27.9 is too old: 1.30 or newer", "Reset cluster"),
    ),
    "old kubectl": (
        {"kubectl version": (0, '{"clientVersion": {"gitVersion": "v1.20.2"}}')},
        ("kubectl 1.20.2 is too old", "1.29 or newer"),
    ),
    "little memory": (
        {"allocatable.memory": (0, "1922032Ki 2097152Ki")},
        ("has 2.0 GiB for pods; docker-desktop needs", ".wslconfig"),
    ),
    "the image does not build": (
        {"docker build": (1, "ERROR: failed to solve: process did not complete")},
        ("failed to solve", "docker build --file images/Dockerfile --target master"),
    ),
    "a secret is missing": (
        {"k8s check": (1, "secrets/engine-keys.env: VLLM_KEY is missing")},
        ("VLLM_KEY is missing", "cannot be applied as it is", "models.yaml, cluster.yaml"),
    ),
    "the manifests cannot be built": (
        {"kubectl kustomize": (1, "secrets/database.env: no such file")},
        ("database.env: no such file", "-only images,secrets"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_explained_before_anything_is_applied(
    machine: Machine, script: str, fault: str
) -> None:
    answers, shown = FAULTS[fault]
    machine.play(answers)
    done = machine.run(script, "--yes")
    assert done.code == 1
    for words in (*shown, "Nothing was applied."):
        assert words in done.shown
    assert changes(machine) == []


@pytest.mark.parametrize("program", ["docker", "kubectl"])
def test_a_missing_program_is_named_with_where_to_get_it(
    machine: Machine, script: str, program: str
) -> None:
    (machine.path / program).unlink()
    done = machine.run(script)
    assert done.code == 1
    assert f"{program} is not on the path" in done.shown
    assert changes(machine) == []


def test_a_disk_that_is_nearly_full_is_explained(machine: Machine) -> None:
    (machine.path / "df").unlink()
    (machine.path / "df").write_text(
        "#!/usr/bin/env bash\necho header\necho /dev/x 100000000 9 3145728 9% /\n"
    )
    (machine.path / "df").chmod(0o755)
    done = machine.run("build-and-run.sh")
    assert done.code == 1
    assert "This disk has 3 GiB free" in done.shown
    assert "docker system prune" in done.shown


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("--overlay", "k3s-gpu"), "say on which"),
        (("--overlay", "nowhere"), "There are: docker-desktop k3s-arm64-cpu k3s-gpu"),
        (("--context", "moon"), "It has: docker-desktop lab"),
        (("--only", "check,imges"), "There is no step imges"),
        (("--dryrun",), "--dryrun is not an option"),
    ],
    ids=["no context", "no overlay", "unknown context", "no step", "no option"],
)
def test_bad_options_are_explained(
    machine: Machine, script: str, options: tuple[str, ...], shown: str
) -> None:
    done = machine.run(script, *options)
    assert done.code == 1
    assert shown in done.shown
    assert changes(machine) == []


def test_models_that_ollama_lacks_are_named_with_the_commands_that_get_them(
    machine: Machine, script: str
) -> None:
    done = machine.run(script, "--only", "check")
    assert done.code == 0
    assert "Ollama lacks models" in done.shown
    assert "    ollama pull qwen2.5-coder:7b\n" in done.shown
    assert "ollama pull nomic-embed-text" not in done.shown


def test_without_an_ollama_all_models_are_named(machine: Machine, script: str) -> None:
    machine.play({"api/tags": (7, "")})
    done = machine.run(script, "--only", "check")
    assert done.code == 0
    assert "Ollama does not answer" in done.shown
    assert done.shown.count("ollama pull") == 3


def test_a_part_that_does_not_become_ready_shows_what_it_said(
    machine: Machine, script: str
) -> None:
    machine.play(
        {
            "rollout status deployment.apps/master": (1, "error: timed out"),
            "logs deployment.apps/master": (0, "DATABASE_URL is wrong"),
            "get pods": (0, "master-1 0/1 CrashLoopBackOff"),
        }
    )
    done = machine.run(script, "--only", "wait")
    assert done.code == 1
    for words in ("CrashLoopBackOff", "DATABASE_URL is wrong", "describe deployment.apps/master"):
        assert words in done.shown
    assert not [call for call in machine.calls() if "logs statefulset" in call]


def test_a_question_without_an_answer_ends_with_what_was_said(
    machine: Machine, script: str
) -> None:
    machine.play({"chat/completions": (0, '{"error": "no worker"}')})
    done = machine.run(script, "--only", "smoke")
    assert done.code == 1
    assert "no worker" in done.shown
    assert "did not answer a question" in done.shown
    assert not list(machine.checkout.rglob("smoke.curl"))
