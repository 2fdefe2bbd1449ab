import json
from collections.abc import Iterator

import pytest

from tests.integration.cli.command_line import Terminal, millrace
from tests.integration.cli.fake_master import FakeMaster, serving

WORKER = {
    "name": "gpu-1-4711",
    "model": "codellama:34b-instruct",
    "slots": 2,
    "running": 1,
    "state": "live",
    "last_seen_seconds": 1.2,
    "host": "gpu-1",
    "release": "0.1.0",
}
QUEUE = {
    "model": "codellama:34b-instruct",
    "queue": "subtasks.codellama-34b-instruct",
    "ready": 12,
    "consumers": 1,
    "db_ready": 120,
    "db_queued": 8,
    "db_running": 1,
}


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with serving(FakeMaster(workers=[WORKER], queues=[QUEUE])) as running:
        yield running


def test_workers_and_queues_are_shown_in_80_columns(master: FakeMaster) -> None:
    done = millrace("status", MILLRACE_URL=master.url)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert f"{master.url} is ready · 1 worker · 1 of 2 slots busy" in words
    assert "gpu-1-4711 codellama:34b-instruct live 1/2 1.2 s ago" in words
    assert "codellama:34b-instruct 12 1 120 8 1" in words
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_workers_are_shown_beside_the_most_that_there_may_be(master: FakeMaster) -> None:
    master.queues = [QUEUE | {"min_workers": 1, "max_workers": 4}]
    words = " ".join(millrace("status", MILLRACE_URL=master.url).stdout.split())
    assert "codellama:34b-instruct 12 1/4 120 8 1" in words


def test_a_model_that_keeps_no_worker_is_no_problem(master: FakeMaster) -> None:
    master.workers = []
    master.queues = [QUEUE | {"min_workers": 0, "max_workers": 4}]
    assert (
        "none is kept: a question starts one" in millrace("status", MILLRACE_URL=master.url).stdout
    )
    master.queues.append(QUEUE | {"model": "kept", "min_workers": 1, "max_workers": 4})
    assert "millrace worker --model kept" in millrace("status", MILLRACE_URL=master.url).stdout


def test_a_master_that_is_not_ready_is_an_error(master: FakeMaster) -> None:
    master.ready = (503, {"status": "not_ready", "checks": {"database": "no answer"}})
    done = millrace("status", MILLRACE_URL=master.url)
    assert done.returncode == 1
    assert "is not ready · database: no answer" in " ".join(done.stdout.split())


def test_a_broker_that_is_away_leaves_what_the_database_says(master: FakeMaster) -> None:
    master.ready = (503, {"status": "not_ready", "checks": {"broker": "no answer"}})
    master.broker_answers = False
    master.queues = [QUEUE | {"ready": None, "consumers": None}]
    done = millrace("status", MILLRACE_URL=master.url)
    words = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (1, "")
    assert "is not ready · broker: no answer · 1 worker" in words
    assert "codellama:34b-instruct - - 120 8 1" in words


def test_a_database_that_is_away_is_named_and_nothing_is_made_up(master: FakeMaster) -> None:
    master.ready = (503, {"status": "not_ready", "checks": {"database": "no answer"}})
    master.away = "database"
    done = millrace("status", MILLRACE_URL=master.url)
    words = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (1, "")
    assert "is not ready · database: no answer" in words
    assert "the database does not answer: queues and workers are not known" in words
    assert "No worker is running" not in words
    seen = json.loads(millrace("status", "--json", MILLRACE_URL=master.url).stdout)
    assert (seen["queues"], sorted(seen["unknown"])) == (None, ["queues", "workers"])


def test_json_is_what_the_master_said(master: FakeMaster) -> None:
    printed = json.loads(millrace("status", "--json", MILLRACE_URL=master.url).stdout)
    assert printed["workers"] == [WORKER]
    assert printed["queues"] == [QUEUE]
    assert printed["ready"]["status"] == "ready"


def test_watch_follows_until_ctrl_c(master: FakeMaster) -> None:
    terminal = Terminal("status", "--watch", MILLRACE_URL=master.url)
    terminal.wait_for("gpu-1-4711")
    master.workers = [{**WORKER, "name": "gpu-9-new"}]
    terminal.wait_for("gpu-9-new")
    master.away = "database"
    terminal.wait_for("the database does not answer")
    terminal.interrupt()
    assert terminal.close() == 130
    assert "Traceback" not in terminal.output


def test_models_of_a_master_are_listed(master: FakeMaster) -> None:
    done = millrace("models", MILLRACE_URL=master.url)
    assert done.returncode == 0
    assert "millrace/split" in done.stdout
    assert "--model codellama:34b-instruct" in done.stdout
    names = json.loads(millrace("models", "--json", MILLRACE_URL=master.url).stdout)
    assert names[0]["id"] == "millrace/auto"
