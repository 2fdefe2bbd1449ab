"""A whole installation in one process: memory bus, real Postgres, real HTTP, workers as tasks."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from pydantic import SecretStr
from sqlalchemy import text

from bus.memory import MemoryBroker, MemoryBus
from master import app
from master.running import Running
from master.settings import MasterSettings
from millrace.chaos.machine import NO_TLS
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from queue_schemas import topology
from queue_schemas.registry import Model, Registry
from worker import consumer
from worker.providers.protocol import Provider
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings

MakeProvider = Callable[[Model], Provider]

QUEUE_KEY = "only for tests"
QUICK: Mapping[str, Any] = {
    "heartbeat_seconds": 0.2,
    "sweep_seconds": 0.4,
    "dispatch_seconds": 0.3,
    "fleet_seconds": 0.3,
    "key_cache_seconds": 0,
    # Standing still for seconds must cost no worker its lease, and no model its worker.
    "lease_seconds": 60,
    "drain_seconds": 1,
    "queue_key": QUEUE_KEY,
}


def a_script(name: str = "mill", **options: Any) -> dict[str, Any]:
    """A registry entry that follows a script; `entry` holds fields of the entry itself."""
    entry = options.pop("entry", {})
    return {"name": name, "provider": "scripted", "slots": 8, "options": options} | entry


@dataclass
class Streamed:
    """A stream that was read to its end."""

    status: int
    headers: httpx2.Headers
    frames: list[Any]
    """The payload of every `data:` line, `[DONE]` as it is."""

    @property
    def request(self) -> str:
        """The id of the request."""
        return self.headers["x-millrace-request-id"]

    @property
    def text(self) -> str:
        """The answer as the client puts it together."""
        return "".join(delta.get("content") or "" for delta in self._deltas())

    @property
    def reasoning(self) -> str:
        """What the model thought before."""
        return "".join(delta.get("reasoning_content") or "" for delta in self._deltas())

    @property
    def error(self) -> dict[str, Any]:
        """The one error frame."""
        (found,) = [frame["error"] for frame in self.frames if "error" in _object(frame)]
        error: dict[str, Any] = found
        return error

    @property
    def finish_reasons(self) -> list[str]:
        """How the choices ended."""
        return [c["finish_reason"] for c in self._choices() if c["finish_reason"]]

    def ends_once(self) -> bool:
        """One terminal event, then `[DONE]`, and nothing after it."""
        errors = ["error" in _object(frame) for frame in self.frames]
        mixed = any("error" in _object(f) and "choices" in f for f in self.frames)
        terminal = sum(errors) + len(self.finish_reasons)
        closed = self.frames[-1:] == ["[DONE]"] and self.frames.count("[DONE]") == 1
        return terminal == 1 and closed and not mixed

    def _choices(self) -> list[dict[str, Any]]:
        return [c for frame in self.frames for c in _object(frame).get("choices", ())]

    def _deltas(self) -> list[dict[str, Any]]:
        return [choice["delta"] for choice in self._choices()]


def _object(frame: Any) -> dict[str, Any]:
    return frame if isinstance(frame, dict) else {}


def payload(line: str) -> Any:
    """What a `data:` line carries; None for every other line."""
    if not line.startswith("data: "):
        return None
    said = line.removeprefix("data: ")
    return said if said == "[DONE]" else json.loads(said)


@dataclass
class Mill:
    """What the tests hold of an installation."""

    running: Running
    broker: MemoryBroker
    registry: Registry
    url: str
    port: int
    key: str
    database_url: str
    http: httpx2.AsyncClient
    worker_buses: dict[str, MemoryBus] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)

    def body(self, content: str = "Why?", model: str = "mill", **more: Any) -> dict[str, Any]:
        """A chat body."""
        return {"model": model, "messages": [{"role": "user", "content": content}], **more}

    async def ask(self, content: str = "Why?", model: str = "mill", **more: Any) -> httpx2.Response:
        """A chat that waits for its answer."""
        return await self.http.post("/v1/chat/completions", json=self.body(content, model, **more))

    @contextlib.asynccontextmanager
    async def stream(
        self, content: str = "Why?", model: str = "mill", **more: Any
    ) -> AsyncGenerator[httpx2.Response, None]:
        """An open stream."""
        body = self.body(content, model, **{"stream": True} | more)
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            yield response

    async def streamed(
        self,
        content: str = "Why?",
        model: str = "mill",
        *,
        seen: Callable[[Streamed], Awaitable[None]] | None = None,
        **more: Any,
    ) -> Streamed:
        """A stream read to its end; `seen` is awaited after every frame."""
        async with self.stream(content, model, **more) as response:
            got = Streamed(response.status_code, response.headers, [])
            async for line in response.aiter_lines():
                frame = payload(line)
                if frame is None:
                    continue
                got.frames.append(frame)
                if seen is not None:
                    await seen(got)
        return got

    async def record(self, request: str) -> dict[str, Any]:
        """The record of a request."""
        answer = await self.http.get(f"/v1/requests/{request}")
        answer.raise_for_status()
        record: dict[str, Any] = answer.json()
        return record

    async def until_state(self, request: str, *states: str, seconds: float = 30) -> dict[str, Any]:
        """The record of a request once it is in one of these states."""

        async def reached() -> dict[str, Any] | None:
            record = await self.record(request)
            return record if record["state"] in states else None

        return await until(reached, seconds)

    async def rows(self, query: str, **values: Any) -> Sequence[Any]:
        """What the database has."""
        async with self.running.engine.connect() as connection:
            return (await connection.execute(text(query), values)).all()

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        return int((await self.rows(f"SELECT count(*) FROM millrace.{table}"))[0][0])

    async def idle(self, seconds: float = 30) -> None:
        """Wait until no HTTP request is handled, no stream is open and no subtask runs."""

        async def nothing() -> bool:
            if _handling():
                return False
            open_subtasks = await self.rows(
                "SELECT count(*) FROM millrace.subtasks WHERE finished_at IS NULL"
            )
            # Again: what has begun while the database was asked may have stored nothing yet.
            is_idle = len(self.running.streams) == 0 and not _handling()
            return is_idle and open_subtasks[0][0] == 0

        await until(nothing, seconds)

    async def nothing_open(self, seconds: float = 30) -> None:
        """Wait until no stream is open: a client may have the last frame a moment earlier."""

        async def nothing() -> bool:
            return len(self.running.streams) == 0

        await until(nothing, seconds)

    def quarantined(self) -> list[str]:
        """Why messages were put aside."""
        waiting = self.broker.queues[topology.QUARANTINE.name].ready
        return [str(message.headers["x-millrace-reason"]) for message in waiting]


def _handling() -> bool:
    """Whether an HTTP server of this process has a request that it has not ended."""
    running = (task.get_coro() for task in asyncio.all_tasks())
    return any(getattr(coro, "__qualname__", "").endswith(".run_asgi") for coro in running)


@contextlib.asynccontextmanager
async def installation(
    database_url: str, *models: Mapping[str, Any], **settings: Any
) -> AsyncGenerator[Mill, None]:
    """A master with its HTTP server, and one worker for each model."""
    async with installations(database_url, *models, masters=1, **settings) as mills:
        yield mills[0]


@contextlib.asynccontextmanager
async def installations(
    database_url: str,
    *models: Mapping[str, Any],
    masters: int,
    roles: Mapping[str, str] | None = None,
    ensemble: Mapping[str, Any] | None = None,
    provider: MakeProvider = make_provider,
    **settings: Any,
) -> AsyncGenerator[list[Mill], None]:
    """Masters on one broker and one database, and one worker for each model."""
    registry = Registry.model_validate(
        {"models": list(models), "roles": dict(roles or {}), "ensemble": dict(ensemble or {})}
    )
    given = {**QUICK, **settings, "DATABASE_URL": SecretStr(database_url)}
    key = await make_key(database_url, "acme", "tests")
    broker = MemoryBroker()
    async with contextlib.AsyncExitStack() as stack:
        mills = [
            await _master(stack, MasterSettings(**given), registry, broker, key)
            for _ in range(masters)
        ]
        await stack.enter_async_context(_workers(mills[0], provider))

        async def all_live() -> bool:
            wanted = len(registry.chat_models())
            return all(len(mill.running.view.workers) == wanted for mill in mills)

        await until(all_live, 30)
        yield mills


async def _master(
    stack: contextlib.AsyncExitStack,
    settings: MasterSettings,
    registry: Registry,
    broker: MemoryBroker,
    key: str,
) -> Mill:
    bus = MemoryBus(broker)
    sock = app.listen("127.0.0.1", 0)
    # Small, and inherited by every connection: so that a slow reader is felt early.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    stack.push_async_callback(bus.aclose)
    running = await stack.enter_async_context(app.run(settings, lambda: registry, bus))
    running.rulebook._patience_seconds = 60  # standing still for seconds is no outage here
    await stack.enter_async_context(app.serving(running, sock))
    http = await stack.enter_async_context(_client(url, key))
    database_url = settings.database_url.get_secret_value()
    return Mill(running, broker, registry, url, port, key, database_url, http)


def _client(url: str, key: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
        trust_env=False,
        verify=NO_TLS,
        # Not for as long as the server keeps them: it must never be the one that closes.
        limits=httpx2.Limits(max_connections=500, keepalive_expiry=1),
    )


@contextlib.asynccontextmanager
async def _workers(mill: Mill, provider: MakeProvider) -> AsyncGenerator[None, None]:
    stop = asyncio.Event()
    tasks = []
    for model in mill.registry.chat_models():
        bus = mill.worker_buses[model.name] = MemoryBus(mill.broker)
        engine = mill.providers[model.name] = provider(model)
        settings = WorkerSettings(
            name=f"{model.slug}-1",
            heartbeat_seconds=0.2,
            coalesce_seconds=0.005,
            drain_seconds=1,
            queue_key=SecretStr(QUEUE_KEY),
        )
        tasks.append(asyncio.create_task(consumer.run(bus, model, settings, engine, stop)))
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        for name, bus in mill.worker_buses.items():
            await mill.providers[name].aclose()
            await bus.aclose()
