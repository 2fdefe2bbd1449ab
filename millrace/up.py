"""`millrace up`: everything on one machine, until Ctrl-C."""

import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import SecretStr
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.memory import MemoryBroker, MemoryBus
from bus.protocol import Bus
from bus.rabbitmq import connect
from db.depths import Depth, depths
from db.engine import create_engine
from master import app
from master.fleet import queues
from master.settings import MasterSettings
from millrace import home, one_machine
from millrace.scaling import autoscaler
from millrace.scaling.autoscaler import Autoscaler
from millrace.scaling.processes import WorkerProcesses
from millrace.scaling.settings import ScalingSettings
from millrace.tracing import traced
from queue_schemas.registry import Registry

_CLIENTS_PORT = 8000
"""Where `millrace ask` and the others look for a master unless told otherwise."""


@dataclass(frozen=True)
class UpOptions:
    """What the command line may say. None: the environment or the default decides."""

    host: str | None = None
    port: int | None = None
    models: Path | None = None


async def up(options: UpOptions, console: Console) -> None:
    """Run database, bus, workers and master; print how to use them."""
    _end_with_the_terminal()
    async with contextlib.AsyncExitStack() as stack:
        # All that may be refused comes first: to make a database takes a while.
        said = settings_for("", host=options.host, port=options.port)
        stack.enter_context(traced(said, _service(), said.replica))
        registry, note = await stack.enter_async_context(one_machine.models(options.models))
        database_url = await stack.enter_async_context(one_machine.database(home.database()))
        settings = said.model_copy(update={"database_url": SecretStr(database_url)})
        key = await one_machine.own_key(database_url)
        bus = await stack.enter_async_context(_bus_and_workers(registry, settings))
        greet = partial(_greet, console, settings, key, note, registry)
        await app.serve(settings, registry, bus, greet)


def _service() -> str:
    """What spans are of: the master with workers in other processes, or all of it."""
    return "millrace-master" if os.environ.get("RABBITMQ_URL") else "millrace"


def settings_for(database_url: str, **options: object) -> MasterSettings:
    """The master's settings: what the command line says, else the environment."""
    said = {name: value for name, value in options.items() if value is not None}
    return MasterSettings(DATABASE_URL=SecretStr(database_url), **said)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def _bus_and_workers(
    registry: Callable[[], Registry], settings: MasterSettings
) -> AsyncGenerator[Bus, None]:
    """The bus of the master, with workers behind it: processes on RabbitMQ, else tasks here."""
    url = os.environ.get("RABBITMQ_URL")
    if url:
        bus: Bus = await connect(url, name=f"master {settings.replica}")
        behind = worker_processes(registry, settings)
    else:
        broker = MemoryBroker()
        bus = MemoryBus(broker)
        behind = one_machine.workers_here(broker, registry(), settings.heartbeat_seconds)
    try:
        await bus.declare(queues(registry()))
        async with behind:
            yield bus
    finally:
        await bus.aclose()


@contextlib.asynccontextmanager
async def worker_processes(
    registry: Callable[[], Registry], settings: MasterSettings
) -> AsyncGenerator[None, None]:
    """As many processes for each model as its backlog asks for; drained on the way out."""
    scaling = ScalingSettings()
    url = settings.database_url.get_secret_value()
    engine = create_engine(url, pool_size=1, name="millrace scaling")
    with TemporaryDirectory(prefix="millrace-up-") as folder:
        start = WorkerProcesses(registry, Path(folder)).start
        try:
            async with autoscaler.running(
                Autoscaler(registry, partial(_depths, engine), start, scaling)
            ):
                yield
        finally:
            await engine.dispose()


async def _depths(engine: AsyncEngine) -> Mapping[str, Depth]:
    async with engine.connect() as connection:
        return await depths(connection)


def _end_with_the_terminal() -> None:
    """A closed terminal is as good as SIGTERM: the workers have process groups of their own."""
    hangup = getattr(signal, "SIGHUP", None)  # there is none on Windows
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:  # not under nohup
        signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))


def _greet(
    console: Console,
    settings: MasterSettings,
    key: str,
    note: str,
    registry: Callable[[], Registry],
) -> None:
    model = registry().default_embedding()
    found = f"meaning ({model.name}) and words" if model else "words: there is no embedding model"
    url = f"http://{settings.host}:{settings.port}"
    say = partial(console.print, soft_wrap=not console.is_terminal)
    say(f"\n[bold]Millrace[/bold] at {url}   ({note})")
    say(f"  API key     {key}", highlight=False)
    if settings.port != _CLIENTS_PORT:
        say(f"  elsewhere   export MILLRACE_URL={url}", highlight=False)
    say('  ask         millrace ask "Compare HNSW and IVFFlat" --strategy split')
    say(f"  documents   millrace ingest FOLDER   new ones are found by {found}")
    say(f"  OpenAI SDK  base_url={url}/v1")
    if settings.console:
        say(f"  console     {url}/console   sign in with the API key")
    say(f"  Open WebUI  Admin > Connections > OpenAI: {url}/v1")
    say("  stop        Ctrl-C\n")
