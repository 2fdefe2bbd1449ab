"""The installation that chaos strikes: private servers, real processes, and proxies between them.

What dies is started again on its old address, as Kubernetes would do.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import asyncpg
import httpx2

from db import migrate
from db.engine import create_engine
from millrace.chaos.engine import serve
from millrace.chaos.local_postgres import LocalPostgres
from millrace.chaos.local_rabbitmq import DELETE_AFTER_SECONDS, LocalRabbit
from millrace.chaos.machine import NO_TLS
from millrace.chaos.moody_engine import MoodyEngine
from millrace.chaos.stack import Process, Stack
from millrace.chaos.tcp_proxy import TcpProxy
from millrace.one_machine import make_key
from queue_schemas import topology

MODEL: Final = "mill"
SLOTS: Final = 4
VHOST: Final = "chaos"
HEARTBEAT_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 4.0
QUICK: Final = {
    "MILLRACE_HEARTBEAT_SECONDS": f"{HEARTBEAT_SECONDS:g}",
    "MILLRACE_WORKER_HEARTBEAT_SECONDS": f"{HEARTBEAT_SECONDS:g}",
    "MILLRACE_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "MILLRACE_SWEEP_SECONDS": "0.2",
    "MILLRACE_FORGOTTEN_SECONDS": "3",
    "MILLRACE_FLEET_SECONDS": "0.5",
    "MILLRACE_DRAIN_SECONDS": "3",
    "MILLRACE_WORKER_DRAIN_SECONDS": "10",
    "MILLRACE_WORKER_CHECK_SECONDS": "1",
    # One subtask may well be hit several times in a run.
    "MILLRACE_MAX_LOSSES": "10",
    "MILLRACE_MAX_ATTEMPTS": "10",
    "MILLRACE_RETRIES_PER_MINUTE": "6000",
}
"""Failures are noticed within seconds; in production it takes half a minute."""
_BROKER_HEARTBEAT_SECONDS: Final = 4
_KEEPER_SECONDS: Final = 0.2
_NO_SERVER: Final = "millrace: cannot reach "
"""What a process says that was started while a server was away."""
_READY: Final = '.ready"'
"""The event that masters and workers log when they serve."""


@dataclass
class Journal:
    """What was done to the processes, and what they did by themselves."""

    killed: list[tuple[str, float]] = field(default_factory=list)
    """URLs of masters that were killed, and when."""
    deaths: list[str] = field(default_factory=list)
    """Processes that ended although nobody had told them to."""
    restarts: int = 0


@dataclass(frozen=True)
class Size:
    """How many processes there are at a time."""

    masters: int
    workers: int


@dataclass
class Installation:
    """Everything that a fault can hit."""

    broker: LocalRabbit
    database: LocalPostgres
    engine: MoodyEngine
    ways: Mapping[str, TcpProxy]
    """The proxies by whose traffic it is: of which processes, and with whom."""
    stack: Stack
    size: Size
    other_key: str = ""
    """The key of another tenant than the one that asks."""
    urls: tuple[str, ...] = ()
    """The addresses of the masters; who is started again keeps its own."""
    journal: Journal = field(default_factory=Journal)
    drop_clients: Callable[[random.Random], int] = lambda _: 0
    _condemned: set[int] = field(default_factory=set)
    _frozen: set[int] = field(default_factory=set)
    _up: set[int] = field(default_factory=set)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _broker_up_at: float = field(default_factory=time.monotonic)
    _queue_deleted_at: float = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, folder: Path, seed: int, size: Size) -> AsyncGenerator[Self, None]:
        """Start it all; end it all. Raises `Unavailable` where a server is missing."""
        async with contextlib.AsyncExitStack() as stack:
            broker, database = await _servers(stack)
            ways = {
                name: await stack.enter_async_context(TcpProxy("127.0.0.1", port))
                for name, port in (
                    ("workers-broker", broker.port),
                    ("masters-broker", broker.port),
                    ("masters-database", database.port),
                )
            }
            engine = MoodyEngine(MODEL, seed)
            endpoint = stack.enter_context(serve(engine))
            processes = _stack(folder, ways, endpoint, size)
            self = cls(broker, database, engine, ways, processes, size)
            stack.callback(self._end)
            self.other_key = await make_key(database.url(), "other", "chaos")
            await processes.start(masters=size.masters, **{MODEL: size.workers})
            self.urls = tuple(master.url for master in processes.masters)
            keeper = asyncio.create_task(self._keep())
            stack.callback(keeper.cancel)
            yield self

    def _end(self) -> None:
        for process in self.stack.processes:
            process.kill()

    # --- processes -------------------------------------------------------------------------------

    def able(self, *, masters: bool) -> list[Process]:
        """The processes of a kind that a fault may hit: they are up, and nothing is done to them.

        One that starts is left alone: on a slow machine, none would ever be up otherwise.
        """
        return [
            process
            for process in self.stack.processes
            if bool(process.url) is masters
            and process.popen.poll() is None
            and process.popen.pid not in self._condemned | self._frozen
            and self._came_up(process)
        ]

    def _came_up(self, process: Process) -> bool:
        if process.popen.pid not in self._up and _READY in process.text():
            self._up.add(process.popen.pid)
        return process.popen.pid in self._up

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        self._condemned.add(process.popen.pid)
        if process.url:
            self.journal.killed.append((process.url, time.monotonic()))
        process.kill()

    def terminate(self, process: Process) -> None:
        """SIGTERM."""
        self._condemned.add(process.popen.pid)
        process.terminate()

    @contextlib.contextmanager
    def frozen(self, process: Process) -> Iterator[None]:
        """SIGSTOP, and SIGCONT in the end."""
        self._frozen.add(process.popen.pid)
        process.freeze()
        try:
            yield
        finally:
            process.thaw()
            self._frozen.discard(process.popen.pid)

    async def _keep(self) -> None:
        """Start again what has ended, on its old address."""
        while True:
            for process in list(self.stack.processes):
                if process.popen.poll() is not None:
                    process.forget()
                    self._note_end(process)
                    self.stack.processes.remove(process)
                    self._start_again(process)
            await asyncio.sleep(_KEEPER_SECONDS)

    def _note_end(self, process: Process) -> None:
        code = process.popen.returncode
        asked = process.popen.pid in self._condemned
        if asked and code in {0, -signal.SIGKILL, -signal.SIGTERM}:
            return
        if code == 1 and process.text().startswith(_NO_SERVER):
            return  # it says so, and is started again until the server is back
        told = " after SIGTERM" if asked else ""
        self.journal.deaths.append(f"{process.log.name} ended with code {code}{told}")

    def _start_again(self, process: Process) -> None:
        self.journal.restarts += 1
        if process.url:
            self.stack.start_master(urlsplit(process.url).port)
        else:
            self.stack.start_worker(MODEL)

    # --- the broker ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _taken(self, what: str) -> AsyncGenerator[None, None]:
        """One fault at a time on one thing."""
        async with self._locks.setdefault(what, asyncio.Lock()):
            yield

    def broker_taken(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Nobody else does anything to the broker meanwhile."""
        return self._taken("broker")

    async def start_broker(self) -> None:
        """Boot the broker again."""
        await asyncio.to_thread(self.broker.start)
        self._broker_up_at = time.monotonic()

    def set_memory_limit(self, share: str) -> None:
        """The share of the memory beyond which the broker blocks publishers."""
        self.broker.rabbitmqctl("set_vm_memory_high_watermark", share)

    async def delete_connection(self, dice: random.Random) -> str | None:
        """Close somebody's connection from the broker's side; gives its name."""
        async with self._management() as http:
            found = (await http.get("/api/connections")).raise_for_status().json()
            ours = sorted(
                (c["name"], c.get("user_provided_name") or c["name"])
                for c in found
                if c.get("vhost") == VHOST
            )
            if not ours:
                return None
            name, title = dice.choice(ours)
            await http.delete(f"/api/connections/{quote(name, safe='')}")
            return str(title)

    async def delete_queue(self, dice: random.Random) -> str:
        """Delete a queue with all that is in it; gives its name.

        RabbitMQ 3.10 never declares dead-lettering queues again when one goes while its
        dead-letter worker still starts, so these are left alone for a while after a start.
        """
        last = max(self._queue_deleted_at, self._broker_up_at)
        names = [topology.WORKERS.name]
        if time.monotonic() - last > DELETE_AFTER_SECONDS:
            names += [topology.RESULTS.name, topology.subtasks(MODEL).name]
        name = dice.choice(names)
        self._queue_deleted_at = time.monotonic()
        async with self._management() as http:
            await http.delete(f"/api/queues/{VHOST}/{name}")
        return name

    async def queues(self) -> dict[str, dict[str, Any]]:
        """What the management API says of every queue."""
        async with self._management() as http:
            answer = await http.get(f"/api/queues/{VHOST}")
            return {queue["name"]: queue for queue in answer.raise_for_status().json()}

    async def letters(self, queue: str, most: int = 1000) -> list[dict[str, Any]]:
        """The messages in a queue, which stay there."""
        wanted = {"count": most, "ackmode": "ack_requeue_true", "encoding": "auto"}
        async with self._management() as http:
            answer = await http.post(f"/api/queues/{VHOST}/{queue}/get", json=wanted)
            found: list[dict[str, Any]] = answer.raise_for_status().json()
            return found

    def _management(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=self.broker.management_url, timeout=30, trust_env=False, verify=NO_TLS
        )

    # --- the database ----------------------------------------------------------------------------

    def database_taken(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Nobody else does anything to the database meanwhile."""
        return self._taken("database")

    async def end_sessions(self, dice: random.Random) -> int:
        """End some or all sessions of the masters; gives how many."""
        connection = await asyncpg.connect(self.database.url())
        try:
            rows = await connection.fetch(
                """SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'millrace%'
                      AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                    ORDER BY pid"""
            )
            pids = [row["pid"] for row in rows]
            chosen = dice.sample(pids, dice.randint(1, len(pids))) if pids else []
            ended = await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen
            )
            return len(ended)
        finally:
            await connection.close()

    # --- the network and the engine --------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def way_taken(self, name: str) -> AsyncGenerator[TcpProxy, None]:
        """Nobody else does anything to this way meanwhile."""
        async with self._taken(name):
            yield self.ways[name]

    def engine_taken(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Nobody else puts the engine into a mood meanwhile."""
        return self._taken("engine")

    async def healthy(self) -> bool:
        """Whether every process is there and every master is ready."""
        masters = self.able(masters=True)
        there = Size(len(masters), len(self.able(masters=False)))
        if there != self.size:
            return False
        async with httpx2.AsyncClient(timeout=2, trust_env=False, verify=NO_TLS) as http:
            try:
                answers = [await http.get(f"{master.url}/ready") for master in masters]
            except httpx2.HTTPError:
                return False
        return all(answer.status_code == 200 for answer in answers)


async def _servers(stack: contextlib.AsyncExitStack) -> tuple[LocalRabbit, LocalPostgres]:
    """A broker with an empty virtual host, and a database with our tables."""
    broker = LocalRabbit(management=True, conf="collect_statistics_interval = 1000")
    stack.callback(broker.close)
    database = LocalPostgres()
    stack.callback(database.close)
    await asyncio.gather(asyncio.to_thread(broker.start), asyncio.to_thread(database.start))
    await asyncio.to_thread(broker.add_vhost, VHOST)
    engine = create_engine(database.url(), pool_size=1, name="millrace migrate")
    try:
        await migrate.upgrade(engine)
    finally:
        await engine.dispose()
    return broker, database


def _stack(folder: Path, ways: Mapping[str, TcpProxy], endpoint: str, size: Size) -> Stack:
    model = {
        "name": MODEL,
        "provider": "openai",
        "endpoint": f"{endpoint}/v1",
        "slots": SLOTS,
        "max_workers": size.workers,
        "first_token_seconds": 3,
        "inter_token_seconds": 2,
    }

    def broker(way: str) -> str:
        at = f"127.0.0.1:{ways[way].port}"
        return f"amqp://guest:guest@{at}/{VHOST}?heartbeat={_BROKER_HEARTBEAT_SECONDS}"

    return Stack(
        folder,
        f"postgresql://postgres@127.0.0.1:{ways['masters-database'].port}/postgres",
        broker("masters-broker"),
        {"models": [model]},
        dict(QUICK),
        worker_rabbitmq_url=broker("workers-broker"),
    )
