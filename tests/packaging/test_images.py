"""The images: their Dockerfile, what goes into them, and the install steps of one of them."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from millrace.k8s import versions

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "images" / "Dockerfile"
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
OURS = {"master": "celery", "worker": "worker", "celery": "celery", "embedder": "embedder"}
"""Images with Millrace in them, and the lock file of each; masters publish by Celery."""
TARGETS = (*OURS, "llama-server")
every_target = pytest.mark.parametrize("target", TARGETS)


@dataclass
class Stage:
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]


def stages() -> dict[str, Stage]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: dict[str, Stage] = {}
    stage = Stage("")
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        name, text = line.split(None, 1)
        if name == "FROM":
            base, _, own = text.partition(" AS ")
            stage = found[own] = Stage(base)
        else:
            stage.steps.append((name, text))
    return found


def whole(target: str) -> list[tuple[str, str]]:
    """The steps of a target with those of the stages that it begins with."""
    known = stages()
    return (whole(known[target].base) if target in known else []) + (
        known[target].steps if target in known else []
    )


def last(target: str, instruction: str) -> str:
    return [text for name, text in whole(target) if name == instruction][-1]


def test_the_dockerfile_is_clean() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(hadolint), str(DOCKERFILE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
    rules = re.findall(r"(?<=\n)(#[^\n]*)\n# hadolint ignore=", DOCKERFILE.read_text())
    assert len(rules) == DOCKERFILE.read_text().count("hadolint ignore=")


def test_there_is_one_target_for_each_image_of_ours() -> None:
    found = stages()
    used = {stage.base for stage in found.values()}
    used |= {name for s in found.values() for c in s.all("COPY") for name in _from(c)}
    assert set(found) - used == set(TARGETS) == set(versions.OURS)


def _from(copy: str) -> list[str]:
    return re.findall(r"--from=(\S+)", copy)


@every_target
def test_an_image_runs_as_an_ordinary_user_and_ends_on_sigterm(target: str) -> None:
    assert last(target, "USER") == "10001:10001"
    assert last(target, "STOPSIGNAL") == "SIGTERM"
    assert last(target, "HEALTHCHECK").startswith("--interval=")
    assert json.loads(last(target, "ENTRYPOINT"))  # a list: no shell is process 1
    assert "HOME=/tmp" in last("runtime", "ENV")


@every_target
def test_an_image_says_what_it_is(target: str) -> None:
    labels = " ".join(text for name, text in whole(target) if name == "LABEL")
    for name in ("title", "description", "version", "revision", "licenses", "vendor"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f'title="millrace/{target}"' in labels


def test_the_versions_agree() -> None:
    tags = versions.load(REPOSITORY / "images" / "versions.env")
    assert tags["MILLRACE_TAG"] == VERSION
    assert f"ARG VERSION={VERSION}\n" in DOCKERFILE.read_text()


def test_no_step_is_for_one_processor_and_none_leaves_bytecode_out() -> None:
    steps = "\n".join(text for stage in stages().values() for _, text in stage.steps)
    assert not re.search(r"amd64|arm64|x86_64|aarch64|TARGETARCH", steps)
    assert "PYTHONDONTWRITEBYTECODE" not in steps
    assert "PYTHONUNBUFFERED=1" in steps


def _context() -> list[tuple[str, bool]]:
    """The patterns of .dockerignore, and whether each brings something back."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    return [(p.removeprefix("!"), p.startswith("!")) for p in lines if p and p[0] != "#"]


def test_what_is_copied_exists_and_is_in_the_context() -> None:
    given = {path for path, back in _context() if back}
    for stage in stages().values():
        for copy in stage.all("COPY"):
            if "--from" in copy:
                continue
            for source in copy.split()[:-1]:
                assert (REPOSITORY / source).exists(), source
                assert any(source == one or source.startswith(f"{one}/") for one in given), source


def test_the_context_holds_no_secrets_and_no_environment() -> None:
    patterns = _context()
    assert patterns[0] == ("*", False)
    assert ("**/.env", False) in patterns
    given = {path for path, back in patterns if back}
    assert not given & {".", ".git", ".venv", "k8s", "compose", "tests"}


def test_the_wheel_is_made_of_all_packages() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = {source for copy in stages()["wheel"].all("COPY") for source in copy.split()[:-1]}
    assert copied == {*packages, "pyproject.toml", "README.md", "LICENSE"}


@pytest.mark.parametrize(("target", "lock"), OURS.items())
def test_a_target_installs_its_lock_file(target: str, lock: str) -> None:
    steps = "\n".join(text for _, text in stages()[f"{lock}-installed"].steps)
    assert f"images/locks/{lock}.lock" in steps
    assert f"./install locked {lock} /opt/millrace" in steps
    assert f"--from={lock}-installed /opt/millrace /opt/millrace" in "\n".join(
        stages()[target].all("COPY")
    )


# --- health checks, run ---


class Answers(http.server.BaseHTTPRequestHandler):
    status = 200
    asked: str | None = None

    def do_GET(self) -> None:
        type(self).asked = self.path
        self.send_response(type(self).status)
        self.end_headers()

    def log_request(self, *said: object) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[tuple[type[Answers], int]]:
    class Own(Answers):
        pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Own, server.server_address[1]
        server.shutdown()
        thread.join()


def check(target: str, there: str, here: str) -> int:
    """The exit code of a health check that looks here and not there."""
    command = json.loads(last(target, "HEALTHCHECK").split("CMD ", 1)[1])
    assert there in command[-1]
    code = command[-1].replace(there, here)
    done = subprocess.run(
        [sys.executable, *command[1:-1], code], stderr=subprocess.DEVNULL, timeout=60, check=False
    )
    return done.returncode


@pytest.mark.parametrize(
    ("target", "port", "path"),
    [
        ("master", 8000, "/ready"),
        ("worker", 8002, "/ready"),
        ("embedder", 8001, "/health"),
        ("llama-server", 8080, "/health"),
    ],
)
def test_a_health_check_asks_where_its_process_listens(
    target: str, port: int, path: str, answers: tuple[type[Answers], int]
) -> None:
    server, here = answers
    assert last(target, "EXPOSE") == str(port)
    assert check(target, str(port), str(here)) == 0
    assert server.asked == path
    server.status = 503
    assert check(target, str(port), str(here)) == 1


def test_a_celery_worker_is_healthy_while_it_touches_its_file(tmp_path: Path) -> None:
    settings = next(text for text in stages()["celery"].all("ENV"))
    alive = settings.removeprefix("MILLRACE_ALIVE_FILE=")
    file = tmp_path / "alive"
    assert check("celery", alive, str(file)) == 1
    file.touch()
    assert check("celery", alive, str(file)) == 0
    os.utime(file, (time.time() - 300, time.time() - 300))
    assert check("celery", alive, str(file)) == 1


# --- the install steps ---

IMPORT_ALL = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "images" / "install"), *arguments],
        # Bytecode costs time; that the images have it was seen in them.
        env={**os.environ, "PYTHON": sys.executable, "PIP_NO_COMPILE": "1", "PIP_NO_INPUT": "1"},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )


@pytest.mark.timeout(600)
def test_the_worker_is_complete_with_its_lock_file_and_the_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "millrace"
    done = install("locked", "worker", str(folder))
    if done.returncode and "Connection" in done.stderr + done.stdout and not os.getenv("CI"):
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stdout + done.stderr
    done = install("wheel", str(wheel), str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No broken requirements" in done.stdout

    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    said = subprocess.run(
        [str(folder / "bin" / "millrace"), "--version"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout == f"millrace {VERSION}\n"
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for package in ("worker", "bus", "queue_schemas")
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    subprocess.run(
        [str(folder / "bin" / "python"), "-c", IMPORT_ALL, "millrace.commands.worker", *modules],
        cwd=tmp_path,
        env=clean,
        timeout=60,
        check=True,
    )


def test_an_install_step_that_does_not_exist_is_explained() -> None:
    done = install("everything")
    assert done.returncode == 2
    assert "install locked TARGET FOLDER" in done.stderr


def test_a_torch_from_elsewhere_has_the_version_that_is_locked(tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(REPOSITORY / "images", images)
    (images / "locks" / "embedder.lock").write_text("")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        [str(images / "install"), "locked", "embedder", str(tmp_path / "into")],
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), "TORCH_INDEX": "file:///builds"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (torch,) = [line for line in done.stdout.splitlines() if "torch==" in line]
    assert re.search(r"--index-url file:///builds torch==\d+\.\d+\.\d+$", torch)
    assert "require-hashes" not in torch
