"""The broker loses everything; the database is away: nothing accepted is lost."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.machine import Unavailable
from millrace.chaos.stack import Stack, until
from tests import servers
from tests.forking import launch
from tests.scenarios.load import nothing_was_lost_or_applied_twice, query

VHOST = "mill"
WORDS = 12
QUESTIONS = 24
"""Two of them a second are answered: for long some run and some wait."""
MODEL = {
    "name": "mill",
    "provider": "scripted",
    "slots": 1,
    "max_workers": 2,
    "options": {"text": "{prompt}", "tokens": WORDS, "tokens_per_second": 12},
}
QUICK = {
    "MILLRACE_HEARTBEAT_SECONDS": "1",
    "MILLRACE_WORKER_HEARTBEAT_SECONDS": "1",
    "MILLRACE_LEASE_SECONDS": "4",
    "MILLRACE_SWEEP_SECONDS": "0.2",
    "MILLRACE_FORGOTTEN_SECONDS": "3",
    "MILLRACE_FLEET_SECONDS": "0.5",
}


@pytest.fixture
def broker() -> Iterator[LocalRabbit]:
    """A broker of the test's own: others would not like what happens to it."""
    try:
        with LocalRabbit() as rabbit:
            rabbit.add_vhost(VHOST)
            yield rabbit
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def stack(tmp_path: Path, migrated_url: str, broker: LocalRabbit) -> Iterator[Stack]:
    stack = Stack(
        tmp_path, migrated_url, broker.url(VHOST), {"models": [MODEL]}, dict(QUICK), launch=launch
    )
    yield stack
    stack.close()
    print(stack.logs())


def lose_everything(broker: LocalRabbit) -> None:
    """Power cut and disk failure: the node comes back without a single queue."""
    broker.kill()
    shutil.rmtree(broker._root / "mnesia")
    (broker._root / "mnesia").mkdir()
    broker.start()
    broker.add_vhost(VHOST)


class Load:
    """Questions under way, each with an answer that only it can have."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._asked: list[asyncio.Task[httpx2.Response]] = []

    async def ask(self, number: int, *, stream: bool = False) -> httpx2.Response:
        body = {
            "model": "mill",
            "stream": stream,
            "messages": [{"role": "user", "content": f"flour-{number}"}],
        }
        async with self._stack.http() as http:
            return await http.post("/v1/chat/completions", json=body, timeout=180)

    def start(self, count: int) -> None:
        first = len(self._asked)
        for number in range(first, first + count):
            self._asked.append(asyncio.create_task(self.ask(number)))

    async def answered(self, seconds: float) -> None:
        """Every one is answered with its own text."""
        async with asyncio.timeout(seconds):
            answers = await asyncio.gather(*self._asked)
        for number, answer in enumerate(answers):
            assert answer.status_code == 200, answer.text
            said = answer.json()["choices"][0]["message"]["content"].split()
            assert said == [f"flour-{number}"] * WORDS


async def until_some_run_and_some_wait(stack: Stack) -> None:
    """And all are accepted: what is refused from then on was asked later."""

    async def both() -> bool:
        rows = await query(stack, "SELECT state, count(*) FROM millrace.subtasks GROUP BY 1")
        states = {row[0]: row[1] for row in rows}
        accepted = sum(states.values()) == QUESTIONS
        return accepted and all(s in states for s in ("running", "queued", "succeeded"))

    await until(both, 60)


def reconcile(stack: Stack, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "millrace", "reconcile", "--json", *arguments]
    options = [
        *("--database-url", stack.database_url),
        *("--rabbitmq-url", stack.rabbitmq_url),
        *("--models", str(stack.folder / "models.yaml")),
    ]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


async def test_a_broker_that_lost_its_data_gets_all_work_again_from_the_sweep(
    stack: Stack, broker: LocalRabbit
) -> None:
    await stack.start(mill=2)
    load = Load(stack)
    load.start(QUESTIONS)
    await until_some_run_and_some_wait(stack)
    await asyncio.to_thread(lose_everything, broker)
    load.start(2)
    await load.answered(120)
    await nothing_was_lost_or_applied_twice(stack, QUESTIONS + 2)
    code, seen = await asyncio.to_thread(reconcile, stack, "--peek", "100")
    assert (code, seen["findings"]) == (0, [])


async def test_reconcile_mends_at_once_what_the_sweep_would_mend_later(
    stack: Stack, broker: LocalRabbit
) -> None:
    stack.settings["MILLRACE_FORGOTTEN_SECONDS"] = "600"
    await stack.start(mill=2)
    load = Load(stack)
    load.start(QUESTIONS)
    await until_some_run_and_some_wait(stack)
    await asyncio.to_thread(lose_everything, broker)
    await stack.ready(stack.masters[0])

    async def only_the_lost_wait() -> bool:
        running = "SELECT 1 FROM millrace.subtasks WHERE state = 'running'"
        waiting = "SELECT 1 FROM millrace.subtasks WHERE state = 'queued'"
        return not await query(stack, running) and bool(await query(stack, waiting))

    await until(only_the_lost_wait, 120)
    code, seen = await asyncio.to_thread(reconcile, stack, "--older-than", "1s")
    assert code == 1
    assert [finding["kind"] for finding in seen["findings"]] == ["missing message"]
    code, seen = await asyncio.to_thread(reconcile, stack, "--older-than", "1s", "--fix")
    assert (code, seen["agrees"]) == (0, True)
    assert all(finding["fixed"] for finding in seen["findings"])
    await load.answered(120)
    await nothing_was_lost_or_applied_twice(stack, QUESTIONS)


async def test_while_the_database_is_away_newcomers_are_told_and_the_accepted_are_answered(
    stack: Stack, postgres_url: str
) -> None:
    await stack.start(mill=2)
    load = Load(stack)
    load.start(QUESTIONS)
    await until_some_run_and_some_wait(stack)
    admin = await asyncpg.connect(postgres_url)
    name = servers.database_name(stack.database_url)
    try:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        refused = await load.ask(99)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        streamed = await load.ask(99, stream=True)
        assert streamed.status_code == 503
        await asyncio.sleep(3)  # the length of the outage, not a synchronisation
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    for _ in range(3):
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        await asyncio.sleep(0.5)  # so that each cut falls into other work
    await admin.close()
    await load.answered(120)
    await nothing_was_lost_or_applied_twice(stack, QUESTIONS)
