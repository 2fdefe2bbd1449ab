"""Runs `millrace` as a process of its own, in an environment without settings."""

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from tests.forking import Forked

SETTINGS = ("MILLRACE_", "DATABASE_URL", "RABBITMQ_URL", "OLLAMA_HOST", "COLUMNS", "LINES")
MILLRACE = [sys.executable, "-m", "millrace"]
ROOT = Path(__file__).parents[3]


def environment(**settings: str) -> dict[str, str]:
    """Ours without any setting of Millrace's, and these."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(SETTINGS)}
    home = {"MILLRACE_HOME": "/nonexistent"}
    return {**kept, **home, "COLUMNS": "80", "PYTHONPATH": str(ROOT), **settings}


def millrace(
    *arguments: str, stdin: str = "", cwd: Path | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end. Some import torch, which takes a minute on a busy machine.

    The process is forked, see `tests.forking`. `Terminal` starts its processes as a user does, and
    so does this where a setting is the interpreter's own.
    """
    if any(name.startswith("PYTHON") for name in settings):
        return subprocess.run(
            [*MILLRACE, *arguments],
            env=environment(**settings),
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stdin").write_text(stdin, "utf-8")
        streams = (folder / "stdin", folder / "stdout", folder / "stderr")
        process = Forked(arguments, environment(**settings), streams, cwd or ROOT)
        try:
            code = process.wait(180)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = [(folder / stream).read_text("utf-8") for stream in ("stdout", "stderr")]
        return subprocess.CompletedProcess(arguments, code, *said)


def python(program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own to the end."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )


class Terminal:
    """A command that runs in a pseudo terminal of 80 columns."""

    def __init__(self, *arguments: str, columns: int = 80, **settings: str) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, columns))
        variables = environment(TERM="xterm-256color", **settings)
        del variables["COLUMNS"]  # the terminal says it
        self.process = subprocess.Popen(
            [*MILLRACE, *arguments],
            env=variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._terminal = ours
        self.output = ""

    def wait_for(self, text: str, seconds: float = 60, *, after: int = 0) -> None:
        """Read until this text was written, behind so many characters."""
        deadline = time.monotonic() + seconds
        while text not in self.output[after:]:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.output}"
            assert self._read(), f"ended without {text!r}: {self.output}"

    def press(self, keys: str) -> None:
        """What typing them does."""
        os.write(self._terminal, keys.encode())

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def close(self) -> int:
        """Read what is left; the exit code."""
        while self._read():
            pass
        os.close(self._terminal)
        return self.process.wait(timeout=60)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], 1.0)
        if not ready:
            return True
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:  # the other side was closed
            return False
        self.output += piece.decode(errors="replace")
        return bool(piece)
