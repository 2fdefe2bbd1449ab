"""`millrace` as a process of its own, without waiting for its imports each time.

The process is forked from one that has them behind it, which is most of what a start takes.
Nothing else is different: it has its own session, environment and signals, and `main` begins anew.
"""

import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from millrace import cli
from millrace.chaos import stack

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    ["millrace.cli", "millrace.problems", *(f"millrace.commands.{name}" for name in cli.COMMANDS)]
)


class Forked:
    """A forked process with the methods of `subprocess.Popen` that are needed."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        streams: tuple[Path, Path, Path],
        folder: Path,
    ) -> None:
        """`streams`: the files of standard input, output and error."""
        self._process = _FORKING.Process(
            target=_become_millrace, args=(list(arguments), dict(environment), streams, folder)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("millrace", timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def launch(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path
) -> stack.Started:
    """Start it as `millrace.chaos.stack.launch` does.

    Settings of the interpreter's own need a new one.
    """
    own = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    if any(os.environ.get(name) != own[name] for name in own.keys() - {"PYTHONUNBUFFERED"}):
        return stack.launch(arguments, environment, log, folder)
    return Forked(arguments, environment, (Path(os.devnull), log, log), folder)


def _become_millrace(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: tuple[Path, Path, Path],
    folder: Path,
) -> None:
    os.setsid()
    for number, path in enumerate(streams):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(path, flags, 0o600), number)
    sys.stdin = io.TextIOWrapper(io.FileIO(0), encoding="utf-8")  # it had /dev/null
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True)  # nothing is lost with a process that is killed
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["millrace", *arguments]
    cli.main()
