"""What private servers need of this machine: free ports, and processes that end with ours."""

import base64
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: to read the machine's certificates takes each of them 40 ms."""

_FIRST_PORT: Final = 20_000
_LAST_PORT: Final = 32_767
_KERNELS_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Unavailable(Exception):
    """None of the ways to get a server works here; the message has the remedy."""


def free_port() -> int:
    """A TCP port on loopback that nobody uses at the moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many of them, all different.

    Whoever gets one listens there a second later, and again after a restart. So they are none of
    those that the kernel gives to others meanwhile, and all our processes take them in turn.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        with _ports_in_turn() as ports:
            for each in sockets:
                _bind(each, ports)
        return [each.getsockname()[1] for each in sockets]


def _bind(free: socket.socket, ports: Iterator[int]) -> None:
    for port in ports:
        with contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return
    free.bind(("127.0.0.1", 0))


@contextlib.contextmanager
def _ports_in_turn() -> Iterator[Iterator[int]]:
    """Candidates after those that any process of this user was given last."""
    many = _last_port() + 1 - _FIRST_PORT
    if sys.platform == "win32" or many < 1000:
        yield iter(())  # then the kernel chooses
        return
    import fcntl  # noqa: PLC0415 - Windows has none

    file = Path(tempfile.gettempdir()) / f"millrace-ports-{os.getuid()}"
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(opened, "r+", encoding="ascii") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)  # until it is closed
        said = kept.read()
        at = int(said) if said.isdecimal() else 0

        def ports() -> Iterator[int]:
            nonlocal at
            for _ in range(many):
                at = (at + 1) % many
                yield _FIRST_PORT + at

        yield ports()
        kept.seek(0)
        kept.truncate()
        kept.write(str(at))


def _last_port() -> int:
    """The last one below those that the kernel gives away."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return min(_LAST_PORT, int(_KERNELS_PORTS.read_text("ascii").split()[0]) - 1)
    return _LAST_PORT


def accepts(port: int) -> bool:
    """Whether somebody on loopback listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def http(method: str, url: str) -> None:
    """Ask an HTTP API for something; user and password may be in the URL."""
    parts = urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    bare = urlunsplit(parts._replace(netloc=f"{parts.hostname}:{parts.port}"))
    headers = {"Authorization": f"Basic {login}"}
    request = urllib.request.Request(bare, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=120):
        pass


def kill_group(leader: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and its children; wait for its end, and insist on it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, number)
    if number != signal.SIGCONT:
        try:
            leader.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()


def guard(target: str, name: str, root: Path | None = None) -> subprocess.Popen[bytes]:
    """A tiny process that kills `target` when we are gone: its standard input then ends.

    It then removes the folder `root` too.
    """
    end = f"kill -s {name} -- {target}"
    if root is not None:
        end += f"; sleep 1; rm -rf '{root}'"
    script = f'read -r word; test "$word" = done || {{ {end}; }}'
    return subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def dismiss(watch: subprocess.Popen[bytes]) -> None:
    """Tell a guard that its target has been ended."""
    watch.communicate(b"done\n")


def memory_bytes(pid: int) -> int | None:
    """The memory that a process has in RAM; None where nobody says."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        pass
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        command = ["ps", "-o", "rss=", "-p", str(pid)]
        return 1024 * int(subprocess.check_output(command, timeout=5))
    return None
