"""What the measurements run on: broker, database, engine, and installations of each system.

Everything listens on free ports of loopback and ends with the benchmark.
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

from bench.load import Target
from bench.processes import (
    REPOSITORY,
    Started,
    answers,
    cpu_seconds,
    parent_of,
    start,
    wait_for,
)
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.machine import free_port
from tests.servers import create_database, postgres

PEERS: Path = REPOSITORY / ".venv" / "bench" / "bin"
MODEL = "mill"
QUESTION = [{"role": "user", "content": "Why does the wheel of a mill go round?"}]

_settings = {
    # The benchmark measures the default settings; only names and places are given.
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Servers:
    """What all systems share."""

    folder: Path
    rabbit: LocalRabbit
    postgres_url: str
    postgres_pid: int
    engine: Started
    engine_port: int
    profile: bool = False
    _numbers: Iterator[int] = field(default_factory=count)

    def engine_target(self, script: str, words: int) -> Target:
        """The engine itself."""
        return Target("engine", self.engine_port, _body(script), words)

    def new_name(self, what: str) -> str:
        """A name that was not used before."""
        return f"{what}-{next(self._numbers)}"


@contextlib.contextmanager
def servers(folder: Path, *, profile: bool = False) -> Generator[Servers]:
    """Broker, database and engine for as long as the block runs."""
    port = free_port()
    with postgres() as url, LocalRabbit() as rabbit:
        engine = start("engine", [sys.executable, "-m", "bench.engine", str(port)], folder)
        try:
            wait_for(engine, lambda: answers(f"http://127.0.0.1:{port}/v1/models"))
            yield Servers(folder, rabbit, url, _postmaster(url), engine, port, profile=profile)
        finally:
            engine.stop()


@dataclass(frozen=True)
class Millrace:
    """A master with its workers, on a virtual host and a database of its own."""

    servers: Servers
    port: int
    key: str
    database_url: str
    environment: Mapping[str, str]
    master: Started
    workers: list[Started] = field(default_factory=list)

    def target(self, words: int, body: Mapping[str, Any] = {}, name: str = "millrace") -> Target:
        """A chat with the model, unless the body says otherwise."""
        return Target(name, self.port, _body(MODEL) | dict(body), words, key=self.key)

    def processes(self) -> dict[str, list[int]]:
        """Who takes part in an answer, by the name that reports use."""
        return {
            "master": [self.master.pid],
            "worker": [worker.pid for worker in self.workers],
            **_shared(self.servers),
        }

    def add_workers(self, number: int, model: str = MODEL) -> list[Started]:
        """Start more workers of a model and wait until they are known."""
        fresh = [self._start_worker(model) for _ in range(number)]
        self.workers.extend(fresh)
        names = {worker.name for worker in fresh}
        for worker in fresh:
            wait_for(worker, lambda: names <= self._known_workers())
        return fresh

    def _start_worker(self, model: str) -> Started:
        name = self.servers.new_name(f"{self.master.name}-worker")
        arguments = ["worker", "--model", model, "--name", name]
        return _start(self.servers, name, arguments, self.environment)

    def _known_workers(self) -> set[str]:
        return {worker["name"] for worker in self.get("/v1/workers")["data"]}

    def get(self, path: str) -> Any:
        """The JSON at a path of the API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            headers={"authorization": f"Bearer {self.key}"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


@contextlib.contextmanager
def millrace(
    servers: Servers,
    model: Mapping[str, Any],
    *,
    workers: int = 1,
    more: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, str] | None = None,
) -> Generator[Millrace]:
    """A Millrace installation that serves one model; started as an operator would.

    `more`: entries of the registry that need no worker. `settings`: what is not the default.
    """
    name, port = servers.new_name("millrace"), free_port()
    models = servers.folder / f"{name}.yaml"
    endpoint = f"http://127.0.0.1:{servers.engine_port}/v1"
    entry = {"name": MODEL, "endpoint": endpoint, **model}
    models.write_text(json.dumps({"models": [entry, *more]}))
    database = create_database(servers.postgres_url)
    servers.rabbit.add_vhost(name)
    environment = {
        **_settings,
        "DATABASE_URL": database,
        "RABBITMQ_URL": servers.rabbit.url(name),
        "MILLRACE_MODELS": str(models),
        **(settings or {}),
    }
    _command(environment, "migrate")
    key = _command(environment, "keys", "create", "bench").strip()
    arguments = ["master", "--port", str(port)]
    master = _start(servers, f"{name}-master", arguments, environment)
    site = Millrace(servers, port, key, database, environment, master)
    try:
        wait_for(master, lambda: answers(f"http://127.0.0.1:{port}/ready"))
        site.add_workers(workers)
        yield site
    finally:
        for process in (*site.workers, master):
            process.stop()


def _start(
    servers: Servers, name: str, arguments: list[str], environment: Mapping[str, str]
) -> Started:
    sampler = ["bench.sampler", str(servers.folder / f"{name}.samples")]
    module = sampler if servers.profile else ["millrace"]
    return start(name, [sys.executable, "-m", *module, *arguments], servers.folder, environment)


def _command(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "millrace", *arguments],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError(f"millrace {arguments[0]}: {done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class LiteLLM:
    """A LiteLLM proxy in front of the engine."""

    process: Started
    port: int
    key: str

    def target(self, words: int, name: str = "litellm") -> Target:
        """A chat."""
        return Target(name, self.port, _body(MODEL), words, key=self.key)

    def wait(self) -> None:
        """Wait until it serves; it takes long, so something else can be started meanwhile."""
        wait_for(self.process, lambda: answers(f"http://127.0.0.1:{self.port}/health/liveliness"))

    def processes(self) -> dict[str, list[int]]:
        """Who takes part in an answer."""
        return {"litellm": [self.process.pid]}


@contextlib.contextmanager
def litellm(servers: Servers, script: str, *, workers: int = 1) -> Generator[LiteLLM]:
    """A LiteLLM proxy as its manual starts it, with one key and no database."""
    name, port = servers.new_name("litellm"), free_port()
    entry = {
        "model_name": MODEL,
        "litellm_params": {
            "model": f"openai/{script}",
            "api_base": f"http://127.0.0.1:{servers.engine_port}/v1",
            "api_key": "none",
        },
    }
    file = servers.folder / f"{name}.yaml"
    file.write_text(json.dumps({"model_list": [entry]}))
    key = f"sk-{secrets.token_hex(32)}"  # it refuses to start without
    environment = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks the network at start
        "LITELLM_MODE": "PRODUCTION",
    }
    command: list[str | Path] = [PEERS / "litellm"]
    command += ["--config", file, "--host", "127.0.0.1", "--port", str(port)]
    if workers > 1:
        command += ["--num_workers", str(workers)]
    process = start(name, command, servers.folder, environment)
    try:
        yield LiteLLM(process, port, key)
    finally:
        process.stop()


class Meter:
    """What named groups of processes have computed since it was made."""

    def __init__(self, groups: Mapping[str, list[int]]) -> None:
        self._groups = groups
        self._before = self._read()

    def spent(self) -> dict[str, float]:
        """CPU seconds by group."""
        return {name: spent - self._before[name] for name, spent in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: cpu_seconds(pids) for name, pids in self._groups.items()}


def _shared(servers: Servers) -> dict[str, list[int]]:
    return {
        "rabbit": [servers.rabbit.pid],
        "postgres": [servers.postgres_pid],
        "engine": [servers.engine.pid],
    }


def _body(model: str) -> dict[str, Any]:
    return {"model": model, "stream": True, "messages": QUESTION}


def _postmaster(url: str) -> int:
    async def parent() -> int:
        connection = await asyncpg.connect(url)
        try:
            backend = int(await connection.fetchval("SELECT pg_backend_pid()"))
            return parent_of(backend)
        finally:
            await connection.close()

    return asyncio.run(parent())
