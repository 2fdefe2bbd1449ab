"""What private servers need of this machine: free ports, and processes that end with ours."""

import base64
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: to read the machine's certificates takes each of them 40 ms."""


class Unavailable(Exception):
    """None of the ways to get a server works here; the message has the remedy."""


def free_port() -> int:
    """A TCP port on loopback that nobody uses at the moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many of them, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


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
    with urllib.request.urlopen(request, timeout=30):
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
