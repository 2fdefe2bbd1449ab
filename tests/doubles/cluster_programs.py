"""Programs named docker, kubectl and curl that record their words and play a given cluster."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.doubles.powershell_commands import run as powershell

REPOSITORY = Path(__file__).parents[2]
TOOLS = (
    *("awk", "bash", "cat", "cut", "df", "dirname", "env", "fold", "grep", "head", "id", "mkdir"),
    *("mktemp", "rm", "sed", "sleep", "sort", "tail", "tr"),
)
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": 'A "mill".\nYes.'}}]}

Answers = dict[str, tuple[int, str]]

# The first pattern that is in the words of a call answers it: `pattern|exit code|text`.
_PROGRAM = """#!/usr/bin/env bash
words="${0##*/} $*"
printf '%s\\n' "$words" >>"$DOUBLES/calls"
while IFS='|' read -r pattern code text; do
  case $words in
    *"$pattern"*)
      if [ "$code" = 0 ]; then printf '%b\\n' "$text"; else printf '%b\\n' "$text" >&2; fi
      exit "$code" ;;
  esac
done <"$DOUBLES/answers"
"""


def healthy(keda: str = "") -> Answers:
    """The answers of a machine on which everything is as it should be."""
    return {
        "docker version": (0, "29.1.2"),
        "kubectl version --client": (0, '{"clientVersion": {"gitVersion": "v1.34.1"}}'),
        "config get-contexts": (0, "docker-desktop\\nlab"),
        "config current-context": (0, "docker-desktop"),
        "get --raw /version": (0, '{\\n  "major": "1",\\n  "gitVersion": "v1.34.1+k3s1"\\n}'),
        "allocatable.memory": (0, "10022032Ki"),
        "api/tags": (0, '{"models":[{"name":"llama3.2:3b"},{"name":"nomic-embed-text:latest"}]}'),
        "get deployment keda-operator": (0, f"kedacore/keda:{keda}" if keda else ""),
        "get statefulset,deployment": (0, "statefulset.apps/rabbitmq\\ndeployment.apps/master"),
        "chat/completions": (0, json.dumps(ANSWER).replace("\\", "\\\\")),
        "localhost:30800": (0, "{}"),
    }


class Ended(NamedTuple):
    """How a run ended and all that it showed."""

    code: int
    shown: str


@dataclass
class Machine:
    """A checkout of the scripts and a PATH on which only doubles and plain tools are."""

    folder: Path
    answers: Answers = field(default_factory=healthy)

    def __post_init__(self) -> None:
        self.checkout = self.folder / "a checkout"
        self.path = self.folder / "bin"
        self.path.mkdir()
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or tool)
        for name in ("docker", "kubectl", "curl"):
            (self.path / name).write_text(_PROGRAM)
            (self.path / name).chmod(0o755)
        shutil.copytree(REPOSITORY / "scripts" / "cluster", self.checkout / "scripts" / "cluster")
        for script in REPOSITORY.glob("build-and-run.*"):
            shutil.copy(script, self.checkout)
        self._lay_out()

    def _lay_out(self) -> None:
        (self.checkout / "images").mkdir()
        shutil.copy(REPOSITORY / "images" / "versions.env", self.checkout / "images")
        for overlay in (REPOSITORY / "k8s" / "overlays").iterdir():
            copy = self.checkout / "k8s" / "overlays" / overlay.name
            (copy / "secrets").mkdir(parents=True)
            (copy / "secrets" / "api-key.env").write_text("MILLRACE_API_KEY=mr-secret\n")
            (copy / "kustomization.yaml").touch()
            shutil.copy(overlay / "models.yaml", copy)

    @property
    def environment(self) -> dict[str, str]:
        """What a command sees."""
        return {"PATH": str(self.path), "HOME": str(self.folder), "DOUBLES": str(self.folder)}

    def play(self, answers: Answers, keda: str = "") -> None:
        """These answers, and else those of a healthy machine with this KEDA."""
        self.answers = answers | healthy(keda) | answers

    def calls(self) -> list[str]:
        """All calls since the last run began."""
        record = self.folder / "calls"
        return record.read_text().splitlines() if record.exists() else []

    def prepare(self) -> None:
        """Forgets the calls and lays out the answers."""
        (self.folder / "calls").unlink(missing_ok=True)
        lines = [f"{pattern}|{code}|{text}\n" for pattern, (code, text) in self.answers.items()]
        (self.folder / "answers").write_text("".join(lines))

    def run(self, script: str, *options: str, given: str = "") -> Ended:
        """A script with options as build-and-run.sh spells them, and `given` typed into it."""
        self.prepare()
        if script.endswith(".ps1"):
            typed = tuple(given.splitlines())
            with contextlib.chdir(self.checkout):
                ended = powershell(self.checkout / script, self.environment, spelt(options), typed)
            return Ended(ended[0], "\n".join(ended[1]) + "\n")
        done = subprocess.run(
            [str(self.checkout / script), *options],
            env=self.environment,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout)


def spelt(options: Sequence[str]) -> dict[str, str | bool | list[str]]:
    """Options of build-and-run.sh as parameters of build-and-run.ps1."""
    parameters: dict[str, str | bool | list[str]] = {}
    words = list(options)
    while words:
        word = words.pop(0)
        name = word.lstrip("-").replace("-", "")
        if name in {"overlay", "context", "only", "registry", "logs"}:
            parameters[name] = words.pop(0)
        elif name in {"upgrade", "down", "keepdata", "status", "yes"} or word == "--dry-run":
            parameters[name] = True
        else:
            parameters["rest"] = [word]
    return parameters
