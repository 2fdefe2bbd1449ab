"""`millrace top` in a terminal and elsewhere."""

import json
from collections.abc import Iterator

import pytest

from millrace.chaos.machine import free_port
from tests.integration.cli.command_line import Terminal, millrace
from tests.integration.cli.fake_master import REQUEST_ID, FakeMaster, serving
from tests.integration.cli.test_requests_command import entry
from tests.integration.cli.test_status import QUEUE, WORKER


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    listed = [entry(REQUEST_ID, state="running", ended=1)]
    made = FakeMaster(workers=[WORKER], queues=[QUEUE | {"window": 16}], listed=listed)
    with serving(made) as running:
        yield running


def test_one_frame_is_printed_where_there_is_no_terminal(master: FakeMaster) -> None:
    done = millrace("top", MILLRACE_URL=master.url)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert "12 at the broker · 120 in the database · 1 running · 1 worker · 1 of 2 slots" in words
    assert "gpu-1-4711" in words
    assert "0199c0de running split 1/2" in words
    assert max(map(len, done.stdout.splitlines())) <= 80
    seen = json.loads(millrace("top", "--json", MILLRACE_URL=master.url).stdout)
    assert (seen["queues"][0]["window"], seen["requests"][0]["id"]) == (16, REQUEST_ID)


def test_a_master_that_is_not_ready_or_away_is_an_error(master: FakeMaster) -> None:
    master.ready = (503, {"status": "not_ready", "checks": {"database": "no answer"}})
    done = millrace("top", "--once", MILLRACE_URL=master.url)
    assert done.returncode == 1
    assert "database: no answer" in " ".join(done.stdout.split())
    away = millrace("top", "--once", MILLRACE_URL="http://127.0.0.1:9")
    assert (away.returncode, away.stdout) == (1, "")
    assert "cannot reach the master" in away.stderr


def test_a_broker_that_is_away_leaves_what_the_database_says(master: FakeMaster) -> None:
    master.ready = (503, {"status": "not_ready", "checks": {"broker": "it does not answer (X)"}})
    master.broker_answers = False
    master.queues = [QUEUE | {"window": 16, "ready": None, "consumers": None}]
    done = millrace("top", "--once", MILLRACE_URL=master.url)
    words = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (1, "")
    assert "- at the broker · 120 in the database · 1 running · 1 worker" in words
    assert "the broker does not answer" in words
    assert "no queue" not in words
    assert "0199c0de running split 1/2" in words


def test_a_database_that_is_away_is_named_and_nothing_is_made_up(master: FakeMaster) -> None:
    master.away = "database"
    master.ready = (503, {"status": "not_ready", "checks": {"database": "no answer"}})
    done = millrace("top", "--once", MILLRACE_URL=master.url)
    words = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (1, "")
    assert "the database does not answer: queues, requests and workers are not known" in words
    assert "0 workers" not in words


def test_keys_change_what_is_shown_and_a_master_that_goes_away_is_waited_for() -> None:
    port = free_port()  # nobody else gets it while nobody listens
    with serving(FakeMaster(workers=[WORKER], queues=[QUEUE]), port) as master:
        terminal = Terminal("top", MILLRACE_URL=master.url)
        terminal.wait_for("gpu-1-4711")
        terminal.press("s")
        terminal.wait_for("deepest first")
        terminal.press("\t")
        terminal.wait_for("open requests")
        master.away = "database"
        terminal.wait_for("trying again: the database does not answer")
        master.away = None
    terminal.wait_for("trying again: cannot reach")
    master.workers = [WORKER | {"name": "gpu-9-new"}]
    with serving(master, port):
        terminal.wait_for("gpu-9-new")
        terminal.press("q")
        assert terminal.close() == 0
    assert "Traceback" not in terminal.output
