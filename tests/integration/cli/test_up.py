"""`millrace up` on a RabbitMQ: its workers are processes, and Ctrl-C ends them in order."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from bus.rabbitmq import connect
from millrace.chaos.machine import free_port
from millrace.chaos.stack import until
from queue_schemas import topology
from tests import forking

MODEL = {
    "name": "mill",
    "provider": "scripted",
    # Longer than we may stand still between seeing it run and Ctrl-C.
    "options": {"text": "flour", "tokens": 40, "tokens_per_second": 3},
}


async def rows(url: str, query: str) -> list[Mapping[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def test_ctrl_c_lets_the_worker_finish_what_it_has(
    tmp_path: Path, migrated_url: str, rabbitmq_url: str
) -> None:
    (tmp_path / "models.yaml").write_text(json.dumps({"models": [MODEL]}))
    port, log = free_port(), tmp_path / "log"
    environment = {
        **os.environ,
        "DATABASE_URL": migrated_url,
        "RABBITMQ_URL": rabbitmq_url,
        "MILLRACE_MODELS": str(tmp_path / "models.yaml"),
        "MILLRACE_HOME": str(tmp_path),
        "MILLRACE_DRAIN_SECONDS": "0",
        "MILLRACE_SCALE_SECONDS": "0.2",
        "MILLRACE_HEALTH_PORT": str(port),  # would keep the worker from starting
    }
    up = forking.launch(["up", "--port", str(port)], environment, log, tmp_path)
    try:

        async def worker() -> Mapping[str, Any] | None:
            assert up.poll() is None, log.read_text()
            return next(
                iter(await rows(migrated_url, "SELECT name, pid FROM millrace.workers")), None
            )

        async def answers() -> bool:
            running = "SELECT 1 FROM millrace.subtasks WHERE state = 'running'"
            return bool(await rows(migrated_url, running))

        serves = await until(worker, 60)
        assert serves["name"].startswith("mill-")
        asking = asyncio.create_task(_ask(port, (tmp_path / "key").read_text().strip()))
        await until(answers, 30)
        os.killpg(up.pid, signal.SIGINT)  # as a terminal does
        assert await asyncio.to_thread(up.wait, 60) in {0, 130}
        await asyncio.wait({asking})
        assert not _runs(serves["pid"])
    finally:
        up.kill()
    bus = await connect(rabbitmq_url, name="test")
    try:
        results = await bus.depth(topology.RESULTS.name)
        work = await bus.depth(topology.subtasks("mill").name)
    finally:
        await bus.aclose()
    assert results is not None
    assert work is not None
    assert (results.ready, work.ready) == (1, 0), "finished, for the next master to collect"


async def _ask(port: int, key: str) -> int:
    body = {"model": "mill", "messages": [{"role": "user", "content": "grind"}]}
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as http:
        answer = await http.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
        )
    return answer.status_code


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
