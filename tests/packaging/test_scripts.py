"""The scripts behind `make`: they say what is missing and how to get it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "cksum", "dirname", "env", "grep", "id")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for PATH with the plainest tools: no Python, no apt, no sudo, no Docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the scripts read, so that they cannot touch this environment."""
    folder = tmp_path / "a checkout"
    shutil.copytree(REPOSITORY / "scripts", folder / "scripts")
    for file in (REPOSITORY / "pyproject.toml", *REPOSITORY.glob("requirements*")):
        shutil.copy(file, folder)
    return folder


def add_command(path: Path, name: str, script: str) -> None:
    command = path / name
    command.write_text(f"#!/usr/bin/env bash\n{script}\n")
    command.chmod(0o755)


def run(checkout: Path, path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "scripts" / command[0]), *command[1:]],
        env={"PATH": str(path), "HOME": str(checkout)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_python_it_says_which_one_is_needed(checkout: Path, path: Path) -> None:
    done = run(checkout, path, "bootstrap", "local")
    assert done.returncode == 1
    assert "needs Python 3.11 or newer and found none" in done.stderr
    assert "apt-get install" in done.stderr


def test_an_old_or_broken_python_is_not_taken(checkout: Path, path: Path) -> None:
    add_command(path, "python3", "exit 1")
    add_command(path, "python", "echo no such version installed >&2; exit 127")
    done = run(checkout, path, "bootstrap", "local")
    assert done.returncode == 1
    assert "found none" in done.stderr
    assert "no such version" not in done.stderr


def test_a_python_that_cannot_make_environments_is_explained(checkout: Path, path: Path) -> None:
    refuse = 'case "$*" in *ensurepip*) exit 1 ;; esac'
    add_command(path, "python3", f'{refuse}\nexec "{sys.executable}" "$@"')
    done = run(checkout, path, "bootstrap", "local")
    assert done.returncode == 1
    version = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert f"apt-get install {version}" in done.stderr
    assert not (checkout / ".venv").exists()


def test_ensurepip_is_installed_where_apt_may(checkout: Path, path: Path) -> None:
    marker = checkout / "installed"
    refuse = f'case "$*" in *ensurepip*) [ -e "{marker}" ] || exit 1 ;; *-m*venv*) exit 9 ;; esac'
    add_command(path, "python3", f'{refuse}\nexec "{sys.executable}" "$@"')
    add_command(path, "sudo", 'shift; exec "$@"')
    add_command(path, "true", "exit 0")
    add_command(path, "apt-get", f'echo "$@" > "{marker}"')
    done = run(checkout, path, "bootstrap", "local")
    assert "-venv" in marker.read_text()
    assert "Making .venv" in done.stdout
    assert done.returncode == 9


def test_an_environment_that_is_current_is_left_alone(checkout: Path, path: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    add_command(python.parent, "python", "exit 1")
    script = (checkout / "scripts" / "bootstrap").read_text()
    fingerprint = re.search(r"^fingerprint\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)
    assert fingerprint
    stamp = subprocess.run(
        [
            "bash",
            "-c",
            f"here=$PWD profile=dev lock=requirements.lock\n{fingerprint[0]}\nfingerprint",
        ],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (checkout / ".venv" / ".made-dev").write_text(stamp)
    done = run(checkout, path, "bootstrap", "dev")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert run(checkout, path, "bootstrap", "dev").returncode == 1


def test_without_any_rabbitmq_it_lists_the_ways_to_get_one(checkout: Path, path: Path) -> None:
    if Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists():
        assert run(checkout, path, "ensure-rabbitmq").returncode == 0
        script = checkout / "scripts" / "ensure-rabbitmq"
        script.write_text(script.read_text().replace("/usr/lib/rabbitmq", "/nowhere"))
    done = run(checkout, path, "ensure-rabbitmq")
    assert done.returncode == 1
    for way in ("apt-get install", "Docker", "MILLRACE_TEST_RABBITMQ_URL"):
        assert way in done.stderr


def test_a_failing_stage_fails_and_says_so(checkout: Path) -> None:
    done = run(checkout, Path(os.environ["PATH"]), "stage", "types", "bash", "-c", "exit 3")
    assert done.returncode == 3
    assert re.search(r"^== types: FAILED in \d+ s$", done.stdout, re.MULTILINE)


def test_every_target_is_explained_by_make_help() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for target in ("demo", "test", "up", "lint", "bench", "help", "clean"):
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE), target
