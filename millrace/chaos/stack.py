"""A whole installation of real processes: masters and workers as `millrace` starts them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from millrace.chaos.machine import NO_TLS, dismiss, free_port, guard
from millrace.one_machine import make_key

T = TypeVar("T")

START_SECONDS = 90.0


class Started(Protocol):
    """A process that runs, as `subprocess` has it."""

    @property
    def pid(self) -> int:
        """Of the process; it leads its own session."""

    @property
    def returncode(self) -> int | None:
        """None while it runs, as far as was looked."""

    def poll(self) -> int | None:
        """Look whether it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `TimeoutExpired`."""

    def kill(self) -> None:
        """SIGKILL."""

    def send_signal(self, sig: int) -> None:
        """Send it any signal."""


Launch = Callable[[Sequence[str], Mapping[str, str], Path, Path], Started]
"""Starts `millrace` with arguments, an environment, a file for what it says, and a folder."""


def launch(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path
) -> Started:
    """Start `millrace` as everybody does."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "millrace", *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,  # a Ctrl-C is for us; we end them
        )


@dataclass
class Process:
    """One started process and its log."""

    name: str
    popen: Started
    log: Path
    url: str = ""
    guard: subprocess.Popen[bytes] | None = None
    """Ends it when we are gone without having ended it."""

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.popen.kill()
        self.popen.wait(60)
        self.forget()

    def forget(self) -> None:
        """It has ended: nobody has to look after it."""
        if self.guard is not None:
            dismiss(self.guard)
            self.guard = None

    def terminate(self) -> None:
        """SIGTERM: an orderly end."""
        self.popen.send_signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.popen.send_signal(signal.SIGCONT)

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")


@dataclass
class Stack:
    """The processes of one installation, on a database and a virtual host of the test's own."""

    folder: Path
    database_url: str
    rabbitmq_url: str
    models: dict[str, Any]
    settings: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    spawned: int = 0
    """How many processes were ever started; part of their names."""
    key: str = ""
    worker_rabbitmq_url: str = ""
    """Where workers find the broker, if that is another way than the masters'."""
    launch: Launch = launch

    async def start(self, *, masters: int = 1, **workers: int) -> None:
        """Start masters, and for each model so many workers, and wait until all are ready."""
        self.key = await make_key(self.database_url, "acme", "tests")
        (self.folder / "models.yaml").write_text(json.dumps(self.models))
        for _ in range(masters):
            self.start_master()
        await asyncio.gather(*(self.ready(master) for master in self.masters))
        for model, number in workers.items():
            for _ in range(number):
                self.start_worker(model)
        await self.until_workers(sum(workers.values()))

    @property
    def masters(self) -> list[Process]:
        """The masters, in the order they were started."""
        return [process for process in self.processes if process.url]

    @property
    def url(self) -> str:
        """The first living master."""
        return next(m.url for m in self.masters if m.popen.poll() is None)

    def start_master(self, port: int | None = None) -> Process:
        """Start a master; it listens a little later."""
        port = port or free_port()
        arguments = ["master", "--host", "127.0.0.1", "--port", str(port)]
        return self._spawn("master", arguments, f"http://127.0.0.1:{port}")

    def start_worker(self, model: str) -> Process:
        """Start a worker; it consumes a little later."""
        name = f"{model}-{self.spawned}"
        return self._spawn(name, ["worker", "--model", model, "--name", name])

    def start_celery(self, *arguments: str) -> Process:
        """Start a Celery worker; its processes are a group of their own."""
        return self._spawn(f"celery-{self.spawned}", ["celery", *arguments], by=launch)

    def worker(self, name: str) -> Process:
        """The worker process of that name."""
        return next(process for process in self.processes if process.name == name)

    @property
    def _workers_broker(self) -> str:
        return self.worker_rabbitmq_url or self.rabbitmq_url

    def _spawn(
        self, name: str, arguments: list[str], url: str = "", by: Launch | None = None
    ) -> Process:
        log = self.folder / f"{name}-{self.spawned}.log"
        environment = {
            **os.environ,
            "DATABASE_URL": self.database_url,
            "RABBITMQ_URL": self.rabbitmq_url if url else self._workers_broker,
            "MILLRACE_MODELS": str(self.folder / "models.yaml"),
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }
        popen = (by or self.launch)(arguments, environment, log, self.folder)
        self.spawned += 1
        process = Process(name, popen, log, url, guard(str(popen.pid), "KILL"))
        self.processes.append(process)
        return process

    async def ready(self, master: Process) -> None:
        """Wait until a master says that it is ready."""

        async def asks() -> bool:
            if master.popen.poll() is not None:
                raise AssertionError(f"the master ended:\n{master.text()}")
            try:
                async with httpx2.AsyncClient(trust_env=False, verify=NO_TLS) as client:
                    return (await client.get(f"{master.url}/ready")).status_code == 200
            except httpx2.TransportError:
                return False

        await until(asks, START_SECONDS)

    async def until_workers(self, number: int) -> None:
        """Wait until so many workers are live."""

        async def live() -> bool:
            for process in self.processes:
                if not process.url and process.popen.poll() not in {None, -signal.SIGKILL}:
                    raise AssertionError(f"{process.name} ended:\n{process.text()}")
            return len((await self.get("/v1/workers"))["data"]) >= number

        await until(live, START_SECONDS)

    def client(self, url: str | None = None) -> AsyncOpenAI:
        """OpenAI's own client of this installation."""
        return AsyncOpenAI(
            base_url=f"{url or self.url}/v1",
            api_key=self.key,
            max_retries=0,
            timeout=60,
            http_client=DefaultAsyncHttpxClient(verify=NO_TLS),
        )

    def http(self, url: str | None = None) -> httpx2.AsyncClient:
        """A plain client of this installation."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.AsyncClient(
            base_url=url or self.url,
            headers=headers,
            timeout=60,
            trust_env=False,
            verify=NO_TLS,
        )

    async def get(self, path: str) -> dict[str, Any]:
        """The JSON at a path."""
        async with self.http() as http:
            answer = await http.get(path)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

    async def record(self, request: str) -> dict[str, Any]:
        """The record of a request."""
        return await self.get(f"/v1/requests/{request}")

    async def ended(self, request: str, seconds: float = 60.0) -> dict[str, Any]:
        """The record of a request once it has its terminal state."""

        async def terminal() -> dict[str, Any] | None:
            record = await self.record(request)
            return record if record["finished_at"] else None

        return await until(terminal, seconds)

    def close(self) -> None:
        """End every process."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.thaw()
                process.terminate()
        for process in self.processes:
            try:
                process.popen.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            process.forget()

    def logs(self) -> str:
        """What all processes have logged, for a failed test."""
        return "\n".join(f"--- {p.name}\n{p.text()}" for p in self.processes)


async def until(condition: Callable[[], Awaitable[T | None]], seconds: float) -> T:
    """Wait until a condition gives something true; it is looked at once more after the time."""
    end = time.monotonic() + seconds
    over = False
    while not over:
        over = time.monotonic() >= end
        if found := await condition():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"did not happen within {seconds} s")
