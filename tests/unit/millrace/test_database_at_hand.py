"""Commands find the database of this machine's `millrace up` where none is named."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace import embedded_postgres
from millrace.commands import options
from millrace.embedded_postgres import running
from millrace.problems import Problem

NOTED = """{pid}
{folder}
1795306155
5432
{folder}

 8826964 65536
{status}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the embedded server has its files."""
    if not embedded_postgres.is_installed():
        pytest.skip("the embedded Postgres is not installed")
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    (tmp_path / "postgres").mkdir()
    return tmp_path / "postgres"


def note(folder: Path, *, pid: int, status: str = "ready   ") -> None:
    """What a running server notes of itself."""
    words = NOTED.format(pid=pid, folder=folder, status=status)
    (folder / "postmaster.pid").write_text(words)


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the name and the arguments of a server of these files."""
    program = folder.parent / "postgres-double"
    program.symlink_to(os.path.realpath(sys.executable))
    wait = [str(program), "-S", "-c", "import time; time.sleep(600)", "-D", str(folder)]
    with subprocess.Popen(wait) as process:
        yield process
        process.kill()


def test_the_server_that_runs_is_used(folder: Path, server: subprocess.Popen[bytes]) -> None:
    note(folder, pid=server.pid)
    assert options.database(None) == f"postgresql://postgres:@/postgres?host={folder}"
    assert options.database("postgresql://other/x") == "postgresql://other/x"


def test_one_that_ended_or_is_not_ready_is_not(
    folder: Path, server: subprocess.Popen[bytes]
) -> None:
    note(folder, pid=2**22 + 1)
    assert running(folder) is None
    note(folder, pid=os.getpid())  # its number is another's now
    assert running(folder) is None
    note(folder, pid=server.pid, status="starting")
    assert running(folder) is None
    for words in ("", "half\n", "many\x00words\n" * 8):
        (folder / "postmaster.pid").write_text(words)
        assert running(folder) is None


def test_without_any_the_error_says_what_to_set(folder: Path) -> None:
    with pytest.raises(Problem, match=r"DATABASE_URL is not set.*--database-url.*/console"):
        options.database(None)
