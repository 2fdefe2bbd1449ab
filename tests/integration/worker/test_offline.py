"""Offline: what is remote only is not served, and says why; the rest is."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bus.memory import MemoryBroker
from millrace.one_machine import workers_here
from queue_schemas.registry import Registry
from tests.doubles.subtasks import a_model
from tests.integration.cli.command_line import millrace


async def test_one_machine_serves_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_OFFLINE", "true")
    models = (a_model(name="hosted", remote=True), a_model(name="local"))

    with capture_logs() as logs:
        async with workers_here(MemoryBroker(), Registry(models=models), 0.2):
            async with asyncio.timeout(30):
                while not any(line["event"] == "worker.ready" for line in logs):  # noqa: ASYNC110 - it is only logged
                    await asyncio.sleep(0.01)

    told = [(line["event"], line["model"]) for line in logs if "model" in line]
    assert ("worker.not_served", "hosted") in told
    assert ("worker.ready", "local") in told
    assert ("worker.ready", "hosted") not in told


@pytest.mark.parametrize("wait", [[], ["--wait"]], ids=["now", "wait"])
def test_a_worker_of_a_remote_model_ends_at_once(tmp_path: Path, wait: list[str]) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("models:\n  - {name: hosted, provider: scripted, remote: true}\n")
    options = ["--model", "hosted", "--models", str(file), "--rabbitmq-url", "amqp://127.0.0.1:9"]

    done = millrace("worker", *options, *wait, MILLRACE_OFFLINE="true")

    assert done.returncode == 1
    assert "hosted cannot be served: it is remote only" in " ".join(done.stderr.split())
