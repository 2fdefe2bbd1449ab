"""The load generator: clients that send ready-made bytes and look for a word in what comes back.

It runs in a process of its own, so that what it costs is not on anybody's account, and it parses
no JSON. `run(Order)` starts one; the rest of this file is that process.
"""

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import uvloop

from bench.engine import WORD

_WORD = WORD.encode()
_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Target:
    """Where to send what, and how many words the answer must have."""

    name: str
    port: int
    body: dict[str, Any]
    words: int
    path: str = "/v1/chat/completions"
    key: str = ""

    def request(self) -> bytes:
        """The bytes of the request."""
        body = json.dumps(self.body).encode()
        lines = [
            f"POST {self.path} HTTP/1.1",
            "host: 127.0.0.1",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *([f"authorization: Bearer {self.key}"] if self.key else []),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Order:
    """So many clients at once; each sends to every target in turn, `chats` times."""

    targets: tuple[Target, ...]
    clients: int
    chats: int
    pause: float = 0.0
    """Seconds between two chats of one client, for latencies without a queue."""
    spread: float = 0.0
    """Seconds over which the clients begin, one after the other."""


@dataclass(frozen=True)
class Load:
    """What a run of the load generator came to."""

    seconds: float
    cpu_seconds: float
    firsts: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from sending to the first word, by target."""
    totals: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from sending to the end of the answer."""
    gaps: dict[str, list[float]] = field(default_factory=dict)
    """The longest silence between the first word and the end of each answer."""
    failures: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Complete answers per second."""
        return sum(len(each) for each in self.totals.values()) / self.seconds


class LoadFailed(Exception):
    """Answers were wrong: such a measurement means nothing."""


def run(order: Order) -> Load:
    """Run the order in a new process. Raises LoadFailed when any answer was wrong."""
    with tempfile.TemporaryDirectory(prefix="millrace-load-") as folder:
        file = Path(folder) / "load.json"
        subprocess.run(
            [sys.executable, "-m", "bench.load", str(file)],
            input=json.dumps(asdict(order)),
            text=True,
            check=True,
            timeout=_LIMIT_SECONDS + 30,
        )
        load = Load(**json.loads(file.read_text()))
    if load.failures:
        names = ", ".join(target.name for target in order.targets)
        raise LoadFailed(f"{names}: {len(load.failures)} failed, first: {load.failures[0]}")
    return load


class _Answer(asyncio.Protocol):
    """One connection and the answer that is coming in on it."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._done: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.first_at = 0.0
        self.gap = 0.0
        self._heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionError(f"the connection was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        if not self.first_at and _WORD in self._received:
            self.first_at = self._heard_at = now
        elif self.first_at:
            self.gap = max(self.gap, now - self._heard_at)
            self._heard_at = now
        if self._done and not self._done.done() and self._is_complete():
            self._done.set_result(None)

    async def ask(self, request: bytes) -> bytes:
        """Send the request; the answer when it is complete."""
        assert self._transport is not None, "the server closed the connection"
        self._received.clear()
        self.first_at = self.gap = 0.0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._done
        return bytes(self._received)

    def _is_complete(self) -> bool:
        received = self._received
        if received.endswith(b"\r\n0\r\n\r\n"):
            return True
        head_ends = received.find(b"\r\n\r\n", 0, 4096) + 4
        head = bytes(received[:head_ends]).lower()
        at = head.find(b"\r\ncontent-length:")
        if head_ends < 4 or at < 0:
            return False
        length = int(head[at + 17 : head.find(b"\r\n", at + 17)])
        return len(received) >= head_ends + length


async def _client(order: Order, load: Load, number: int) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(order.spread * number / order.clients)
    answers: dict[str, _Answer] = {}
    requests = {target.name: target.request() for target in order.targets}
    for target in order.targets:
        _, answer = await loop.create_connection(_Answer, "127.0.0.1", target.port)
        answers[target.name] = answer
    for _ in range(order.chats):
        for target in order.targets:
            answer = answers[target.name]
            if order.pause:
                await asyncio.sleep(order.pause)
            began = time.perf_counter()
            received = await answer.ask(requests[target.name])
            ended = time.perf_counter()
            if wrong := _wrong(received, target):
                load.failures.append(wrong)
                return
            load.firsts[target.name].append(round(answer.first_at - began, 6))
            load.totals[target.name].append(round(ended - began, 6))
            load.gaps[target.name].append(round(answer.gap, 6))


def _wrong(received: bytes, target: Target) -> str:
    words = received.count(_WORD)
    if received.startswith(b"HTTP/1.1 200") and words == target.words:
        return ""
    return f"{words} words instead of {target.words}: {received[-300:]!r}"


async def _run(order: Order) -> Load:
    names = [target.name for target in order.targets]
    firsts, totals, gaps = ({name: list[float]() for name in names} for _ in range(3))
    load = Load(0, 0, firsts, totals, gaps)
    began, cpu = time.perf_counter(), time.process_time()
    try:
        async with asyncio.timeout(_LIMIT_SECONDS), asyncio.TaskGroup() as clients:
            for number in range(order.clients):
                clients.create_task(_client(order, load, number))
    except* (OSError, TimeoutError) as errors:
        load.failures.append(repr(errors.exceptions[0]))
    seconds = time.perf_counter() - began
    return replace(load, seconds=seconds, cpu_seconds=time.process_time() - cpu)


def _read(text: str) -> Order:
    found = json.loads(text)
    targets = tuple(Target(**target) for target in found.pop("targets"))
    return Order(targets, **found)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    done = uvloop.run(_run(_read(sys.stdin.read())))
    Path(sys.argv[1]).write_text(json.dumps(asdict(done)))
