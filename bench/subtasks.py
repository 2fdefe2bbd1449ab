"""Row 3: durable subtasks per second with their results stored, through Millrace and Celery.

Nobody calls an engine here: both sides produce the same small answer at once, so that what is
measured is the way there and back.
"""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from bench.effort import Effort
from bench.engine import WORD
from bench.load import Order, Target, run
from bench.processes import Started, start
from bench.samples import Cost, Findings, Limit, Row, cost, ratios
from bench.site import PEERS, Meter, Millrace, Servers
from tests.servers import create_database

MODEL = {"provider": "scripted", "slots": 64, "options": {"text": WORD}}
PARTS = 8
SPLIT_QUESTION = "\n".join(
    f"{number}. What is {thing}, in all detail that you can give?"
    for number, thing in enumerate(
        ("a mill", "a wheel", "a race", "a stone", "a weir", "a sluice", "a hopper", "a sieve"), 1
    )
)
SPLIT_BODY = {
    "model": "millrace/split",
    "messages": [{"role": "user", "content": SPLIT_QUESTION}],
}
_CLIENTS = 64
_SPLIT_CLIENTS = 16
_CELERY_THREADS = 8
_CELERY_POOL = ("--pool", "prefork", "--concurrency", "2")
"""The fastest here of prefork with 1, 2 and 4 processes, and of 8 threads."""


@dataclass
class _Measured:
    rates: list[float] = field(default_factory=list)
    spent: list[dict[str, float]] = field(default_factory=list)

    def add(self, subtasks: int, seconds: float, spent: dict[str, float]) -> None:
        """The outcome of one round."""
        self.rates.append(subtasks / seconds)
        self.spent.append({name: each / subtasks for name, each in spent.items()})


def subtasks(servers: Servers, mill: Millrace, effort: Effort) -> Findings:
    """Millrace with requests of 1 and of 8 subtasks; Celery with its two kinds of results."""
    single = mill.target(1, {"stream": False})
    split = mill.target(PARTS, {**SPLIT_BODY, "stream": False})
    ones, eights, messages, table = _Measured(), _Measured(), _Measured(), _Measured()
    with contextlib.ExitStack() as stack:
        by_rpc = stack.enter_context(celery(servers, "rpc"))
        by_table = stack.enter_context(celery(servers, "postgres"))
        for target in (single, split):
            run(Order((target,), 8, 2))
        before = _stored(mill)
        for _ in range(effort.rounds):
            _measure(mill, single, _CLIENTS, effort.subtasks, 1, ones)
            by_rpc.measure(effort.subtasks, messages)
            _measure(mill, split, _SPLIT_CLIENTS, effort.subtasks, PARTS, eights)
            by_table.measure(effort.table_subtasks, table)
    expected = 2 * effort.rounds * effort.subtasks
    stored = _stored(mill) - before
    assert stored == expected, f"{stored} results are in the database instead of {expected}"
    peers = {"Celery rpc": messages, "Celery table": table}
    ours = {"subtasks, 1 a request": ones, "subtasks, 8 a request": eights}
    return Findings(
        tuple(
            Row(
                *("3", title, "per s", tuple(our.rates), peer, tuple(their.rates)),
                judged=ratios(our.rates, their.rates),
                limit=Limit(1.5, at_least=True),
            )
            for peer, their in peers.items()
            for title, our in ours.items()
        ),
        _costs({"Millrace 1": ones, "Millrace 8": eights, **peers}),
        (f"all {stored} of Millrace's results were found in its database",),
    )


def _costs(systems: dict[str, _Measured]) -> tuple[Cost, ...]:
    return tuple(cost("subtask", name, system.spent) for name, system in systems.items())


def _measure(
    mill: Millrace, target: Target, clients: int, subtasks: int, parts: int, into: _Measured
) -> None:
    meter = Meter(mill.processes())
    load = run(Order((target,), clients, subtasks // parts // clients))
    into.add(subtasks, load.seconds, {**meter.spent(), "client": load.cpu_seconds})


def _stored(mill: Millrace) -> int:
    async def ask() -> int:
        connection = await asyncpg.connect(mill.database_url)
        try:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM millrace.subtasks WHERE state = 'succeeded'"
                )
            )
        finally:
            await connection.close()

    return asyncio.run(ask())


@dataclass(frozen=True)
class CeleryWorker:
    """A Celery worker on a virtual host of its own."""

    servers: Servers
    process: Started
    environment: dict[str, str]

    def measure(self, subtasks: int, into: _Measured) -> None:
        """Send subtasks from a client process and wait for all results."""
        command: list[str | Path] = [PEERS / "python", "-m", "bench.celery_load"]
        command += [str(subtasks), str(_CELERY_THREADS)]
        meter = Meter(
            {
                "worker": [self.process.pid],
                "rabbit": [self.servers.rabbit.pid],
                "postgres": [self.servers.postgres_pid],
            }
        )
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(f"{done.stderr[-2000:]}\n{self.process.tail()}")
        found = json.loads(done.stdout)
        spent = {**meter.spent(), "client": found["cpu_seconds"]}
        into.add(found["subtasks"], found["seconds"], spent)


@contextlib.contextmanager
def celery(servers: Servers, results: str) -> Generator[CeleryWorker]:
    """A Celery worker; its client's first subtask waits for it."""
    name = servers.new_name(f"celery-{results}")
    servers.rabbit.add_vhost(name)
    database = create_database(servers.postgres_url)
    environment = {
        "BENCH_BROKER_URL": servers.rabbit.url(name),
        "BENCH_RESULTS": results,
        "BENCH_RESULTS_URL": "db+postgresql+psycopg://" + database.split("://", 1)[1],
    }
    command: list[str | Path] = [PEERS / "celery", "--app", "bench.celery_app", "worker"]
    lean = [
        "--loglevel",
        "WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        *_CELERY_POOL,
    ]
    process = start(name, [*command, *lean], servers.folder, environment)
    try:
        yield CeleryWorker(servers, process, environment)
    finally:
        process.stop()
