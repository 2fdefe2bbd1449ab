"""What containers are told to run, and what probes ask: all of it is there in the code."""

import re
import shlex
from collections.abc import Iterator

import pytest
import typer

from tests.packaging.k8s.conftest import REPOSITORY
from tests.packaging.k8s.known_names import answers, parse
from tests.packaging.k8s.manifests import Cluster, Container, Manifest

OTHERS = {
    "ollama/ollama": {"/"},
    "openwebui/open-webui": {"/health", "/health/db", "/ready"},
    "n8nio/n8n": {"/healthz", "/healthz/readiness"},
    "prom/prometheus": {"/-/healthy", "/-/ready"},
    "grafana/grafana": {"/api/health"},
    "millrace/llama-server": {"/health", "/v1/models"},
}
"""What probes may ask of programs that are not ours."""
SHELLS = {"sh", "/bin/sh", "bash"}
KEYWORDS = {"until", "while", "do", "done", "if", "then", "else", "fi", "!", "exec"}


def _lines(container: Container) -> Iterator[list[str]]:
    """Every command line of a container, those within a shell's script too."""
    spec = container.spec
    yield from _split([*spec.get("command", []), *spec.get("args", [])])
    for each in _actions(spec):
        if "exec" in each:
            yield from _split(each["exec"]["command"])


def _actions(spec: Manifest) -> Iterator[Manifest]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in spec:
            yield spec[name]
    yield from spec.get("lifecycle", {}).values()


def _split(line: list[str]) -> Iterator[list[str]]:
    """The commands of a script that a shell is given; else the line itself."""
    if len(line) < 3 or line[0] not in SHELLS or not re.fullmatch(r"-[a-z]*c", line[1]):
        yield from [line] if line else []
        return
    for row in line[2].splitlines():
        words: list[str] = []
        for token in [*shlex.shlex(row, posix=True, punctuation_chars=True), ";"]:
            if set(token) <= set("();&|"):
                yield from [words] if words else []
                words = []
            elif words or token not in KEYWORDS:
                words.append(token)


def _arguments(words: list[str]) -> list[str]:
    """Without the program, and without what a shell redirects."""
    at = next((at for at, word in enumerate(words) if set(word) <= set("<>")), len(words))
    return words[1:at]


def test_command_lines_of_ours_are_understood(cluster: Cluster) -> None:
    for container in cluster.containers:
        for words in _lines(container):
            if words[0] != "millrace":
                continue
            try:
                path, _ = parse(_arguments(words))
            except typer.TyperException as error:
                pytest.fail(f"{container}: {shlex.join(words)}: {error.format_message()}")
            assert path, container


def test_our_images_are_told_what_to_run(cluster: Cluster) -> None:
    for container in cluster.containers:
        if container.is_ours and container.image != "millrace/llama-server":
            spec = container.spec
            assert any(words[0] == "millrace" for words in _lines(container)), container
            assert [*spec.get("command", []), *spec.get("args", [])], container


def test_each_image_runs_what_it_is_made_for(cluster: Cluster) -> None:
    made_for: dict[str, set[tuple[str, ...]]] = {
        "millrace/worker": {("worker",)},
        "millrace/embedder": {("embedder",)},
        "millrace/celery": {("celery",), ("keys", "list")},
        "millrace/master": {
            ("master",),
            ("migrate",),
            ("keys", "ensure"),
            ("keys", "list"),
            ("n8n", "provision"),
        },
    }
    for container in cluster.containers:
        for words in _lines(container):
            if words[0] == "millrace":
                path, _ = parse(_arguments(words))
                assert tuple(path) in made_for[container.image], f"{container}: {words}"


def test_probes_ask_for_what_is_there(cluster: Cluster) -> None:
    for container in cluster.containers:
        for action in _actions(container.spec):
            for kind in ("httpGet", "tcpSocket"):
                if kind in action:
                    port = action[kind]["port"]
                    ports = container.ports
                    known = ports.keys() if isinstance(port, str) else ports.values()
                    assert port in known, f"{container}: there is no port {port}"
            if "httpGet" in action:
                path = action["httpGet"]["path"].partition("?")[0]
                assert _is_answered(container, path), f"{container}: {path}"


def _is_answered(container: Container, path: str) -> bool:
    for words in _lines(container):
        if words[0] == "millrace":
            return answers(words[1], path)
    return path in OTHERS[container.image]


def test_the_lines_of_a_script_are_found() -> None:
    script = "until millrace keys list > /dev/null\n do sleep 5; done\nmillrace migrate && echo ok"
    found = [" ".join(words) for words in _split(["sh", "-ec", script])]
    assert found == [
        "millrace keys list > /dev/null",
        "sleep 5",
        "millrace migrate",
        "echo ok",
    ]
    assert _arguments(found[0].split()) == ["keys", "list"]


def test_our_images_are_made_by_the_dockerfile_with_the_folders_that_are_named(
    cluster: Cluster,
) -> None:
    text = (REPOSITORY / "images" / "Dockerfile").read_text("utf-8")
    targets = set(re.findall(r"(?m)^FROM \S+ AS (\S+)$", text))
    copied = set(re.findall(r"(?m)^COPY (?:--\S+ )?\S+ (/\S+)$", text))
    for container in cluster.containers:
        if not container.is_ours:
            continue
        assert container.image.removeprefix("millrace/") in targets, container
        for words in _lines(container):
            if "--workflows" in words:
                assert words[words.index("--workflows") + 1] in copied, container
