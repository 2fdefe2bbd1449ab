"""`millrace chaos` itself: a short run holds, sabotage is found, Ctrl-C ends it with a report."""

import contextlib
import json
import logging
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from millrace import cli
from millrace.chaos import local_postgres, local_rabbitmq
from millrace.chaos.faults import KINDS, MOMENT, Kind
from millrace.chaos.installation import Installation
from millrace.chaos.machine import Unavailable
from millrace.chaos.stack import until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", autouse=True)
def servers() -> None:
    """A RabbitMQ and a Postgres to start are needed; a container would not do."""
    try:
        local_rabbitmq._find_rabbitmq_server()
        local_postgres._find_programs()
    except Unavailable as error:
        pytest.skip(str(error))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "millrace", "chaos", "--json", *arguments]


def test_a_short_run_breaks_no_promise(tmp_path: Path) -> None:
    page = tmp_path / "chaos.md"
    done = subprocess.run(
        command("--seconds", "25", "--seed", "11", "--report", str(page)),
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)  # pytest shows it when the test failed
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["violations"] == 0
    assert found["faults_not_injected"] == []
    assert sum(found["faults"].values()) >= 5
    assert found["states"]["completed"] >= 10
    assert found["numbers"]["quiet_after_seconds"] is not None
    assert "Every invariant held" in page.read_text("utf-8")
    assert "s of 25" in done.stderr
    assert not Path(found["logs"]).exists()


@contextlib.asynccontextmanager
async def reopen(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    """What nobody may ever do: change how requests have ended, and what was answered."""
    connection = await asyncpg.connect(site.database.url())

    async def changed() -> str:
        """Waits for the first that has ended: on a slow machine it takes its time."""
        rows: str = await connection.execute(
            """UPDATE millrace.requests SET state = 'cancelled', answer = 'nothing'
                WHERE state = 'completed'"""
        )
        return "" if rows == "UPDATE 0" else rows

    try:
        yield await until(changed, 60)
    finally:
        await connection.close()


@pytest.fixture
def log() -> Iterator[None]:
    """The command silences the log of its process, which is ours here."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("log")
def test_sabotage_is_found_and_the_command_that_replays_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KINDS, "sabotage", Kind(reopen, 1, MOMENT))  # type: ignore[misc]
    size = ["--masters", "1", "--workers", "1", "--clients", "3"]
    arguments = ["--seconds", "8", "--seed", "3", "--faults", "sabotage", *size]
    assert cli.run(["chaos", *arguments]) == 1
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    assert "went from completed to cancelled" in shown
    assert "Replay: millrace chaos --seed 3 --seconds 8 --masters 1" in shown
    assert "--faults sabotage" in shown
    folder = Path(said.err.split("Logs and records: ")[1].strip())
    records: dict[str, Any] = json.loads((folder / "records.json").read_text("utf-8"))
    assert records["invariants"]["I12"]["violations"]
    assert records["evidence"]["visits"]
    assert list(folder.glob("master-*.log"))


def test_ctrl_c_ends_the_faults_and_reports() -> None:
    started = subprocess.Popen(
        command("--seconds", "600", "--seed", "4", "--faults", "worker-kill"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stderr is not None
    for line in started.stderr:
        if "requests" in line:  # the load runs
            break
    started.send_signal(signal.SIGINT)
    out, error = started.communicate(timeout=200)
    print(out, error)
    found = json.loads(out)
    assert started.returncode == 0
    assert found["interrupted"]
    assert found["violations"] == 0
