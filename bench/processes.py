"""Starting processes, waiting until they serve, and reading what they have cost."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
START_SECONDS = 90.0
_STOP_SECONDS = 15.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Started:
    """A process of ours and where it writes."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """SIGKILL to its group: no goodbye."""
        os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(_STOP_SECONDS)

    def stop(self) -> None:
        """SIGTERM to its group, then SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.popen.poll() is None:
                os.killpg(self.pid, number)
                try:
                    self.popen.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    continue


class NotStarted(Exception):
    """A process ended, or did not serve in time; the message has the end of its log."""


def start(
    name: str, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] = {}
) -> Started:
    """Start a process in the repository, with a log of its own."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [str(word) for word in command],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Started(name, popen, log)


def wait_for(process: Started, ready: Callable[[], bool]) -> None:
    """Wait until a process serves. Raises NotStarted."""
    end = time.monotonic() + START_SECONDS
    while not ready():
        if process.popen.poll() is not None or time.monotonic() > end:
            raise NotStarted(f"{process.name} does not serve:\n{process.tail()}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether a GET gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return int(response.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def cpu_seconds(roots: Iterable[int]) -> float:
    """What these processes and everything below them have computed until now."""
    children: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(entry)):
            parent, seconds = stat
            children.setdefault(parent, []).append(int(entry.name))
            spent[int(entry.name)] = seconds
    waiting, total = list(roots), 0.0
    while waiting:
        pid = waiting.pop()
        total += spent.get(pid, 0.0)
        waiting += children.get(pid, [])
    return total


def peak_megabytes(pid: int) -> float:
    """The most memory that a process has had resident."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def parent_of(pid: int) -> int:
    """The process that started this one."""
    stat = _stat(Path("/proc") / str(pid))
    assert stat is not None, f"there is no process {pid}"
    return stat[0]


def _stat(process: Path) -> tuple[int, float] | None:
    """Parent, and seconds of the process and of its children that have ended."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(map(int, fields[11:15])) / _TICK
