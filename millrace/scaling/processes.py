"""Starting `millrace worker` as a process of this machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from queue_schemas.registry import Model, Registry

_OF_ONE_PROCESS = (
    "MILLRACE_HEALTH_PORT",
    "MILLRACE_POD_DELETION_COST",
    "MILLRACE_WORKER_NAME",
)
"""Settings that several workers of one machine cannot share."""
_DRAIN = "MILLRACE_WORKER_DRAIN_SECONDS"
_PARENT = "MILLRACE_WORKER_PARENT"
_MARGIN_SECONDS = 30
"""More than the longest subtask takes, so that a worker that drains always finishes it."""


class WorkerProcesses:
    """Starts workers that serve what this process serves.

    They are given the registry as it is here: theirs to find might be another file, one that is
    broken at the moment, or none, where the models are those that an Ollama has.
    """

    def __init__(self, registry: Callable[[], Registry], folder: Path) -> None:
        self._registry = registry
        self._file = folder / "models.yaml"

    def start(self, model: Model, name: str) -> subprocess.Popen[bytes]:
        """One worker. It has a process group of its own, so that Ctrl-C ends it by us alone."""
        return subprocess.Popen(  # noqa: S603  our own interpreter, names of our own registry
            [sys.executable, "-m", "millrace", *self.arguments(model, name)],
            # Killed, we can end nobody: they look whether we are there.
            env=environment(os.environ, model) | {_PARENT: str(os.getpid())},
            process_group=0 if os.name == "posix" else None,
        )

    def arguments(self, model: Model, name: str) -> list[str]:
        """The command line of one worker; the file that it names has been written."""
        # Each time: folders like this one are tidied up by the system after some days.
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(as_yaml(self._registry()), "utf-8")
        fresh.replace(self._file)  # at once: a worker may be about to read it
        return [
            "worker",
            "--wait",
            "--model",
            model.name,
            "--name",
            name,
            "--models",
            str(self._file),
        ]


def environment(own: Mapping[str, str], model: Model) -> dict[str, str]:
    """What a worker is given of our environment."""
    drain = {_DRAIN: f"{model.timeout_seconds + _MARGIN_SECONDS:g}"}
    return drain | {name: value for name, value in own.items() if name not in _OF_ONE_PROCESS}


def as_yaml(registry: Registry) -> str:
    """A file from which the same registry is read."""
    return yaml.safe_dump(registry.model_dump(mode="json"), allow_unicode=True)
