"""`master` and `worker` as processes, on a real Postgres and a real RabbitMQ."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.chaos.machine import free_port
from tests.integration.cli.command_line import MILLRACE, ROOT, environment, millrace

MODELS = str(ROOT / "millrace/models/one-machine.yaml")
NOTES = "The mill stands at the river. A millrace carries water to the wheel. Ducks like it.\n"


@contextlib.contextmanager
def process(*arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [*MILLRACE, *arguments],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()


def end(running: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    return running.returncode, said


def until_status(seconds: float, workers: int, **settings: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        seen = millrace("status", "--json", **settings)
        if seen.returncode == 0 and len(json.loads(seen.stdout)["workers"]) == workers:
            return
        assert time.monotonic() < deadline, f"never {workers} workers: {seen.stdout}{seen.stderr}"


def test_a_question_goes_through_master_and_worker_and_both_end_in_order(
    database_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    port = str(free_port())
    servers = {"DATABASE_URL": database_url, "RABBITMQ_URL": rabbitmq_url}
    servers |= {"MILLRACE_MODELS": MODELS, "MILLRACE_PORT": port}
    assert millrace("migrate", **servers).returncode == 0
    key = millrace("keys", "create", "test", **servers).stdout.strip()
    client = {"MILLRACE_URL": f"http://127.0.0.1:{port}", "MILLRACE_API_KEY": key}
    (tmp_path / "notes.md").write_text(NOTES)

    with (
        process("master", **servers) as master,
        process("worker", "--model", "extractive", **servers) as worker,
    ):
        until_status(60, workers=1, **client)
        asked = ("ask", "What carries water to the wheel?", "--file", "notes.md", "--json")
        done = millrace(*asked, cwd=tmp_path, **client)
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
        assert "A millrace carries water to the wheel" in printed["answer"]
        assert printed["request"]["state"] == "completed"
        assert {s["state"] for s in printed["request"]["subtasks"]} == {"succeeded"}

        assert end(worker, signal.SIGTERM)[0] == 0
        code, said = end(master, signal.SIGTERM)
        assert code == 0, said
        assert "Traceback" not in said


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_worker_without_any_master_starts_and_ends_in_order(
    number: signal.Signals, expected: int, rabbitmq_url: str
) -> None:
    settings = {"RABBITMQ_URL": rabbitmq_url, "MILLRACE_MODELS": MODELS}
    with process("worker", "--model", "extractive", **settings) as worker:
        assert worker.stderr is not None
        assert any('"worker.ready"' in line for line in worker.stderr)
        code, said = end(worker, number)
    assert code == expected, said
    assert "Traceback" not in said
