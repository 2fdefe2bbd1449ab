"""Servers for all tests: started when the first test asks, once per session, and always stopped."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.typing import EventDict, WrappedLogger

from db import migrate, tenants
from db.engine import create_engine
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.machine import Unavailable
from tests import servers

_ROOT = Path(__file__).parent


def _plainly(_: WrappedLogger, __: str, said: EventDict) -> str:
    first = " ".join(str(said.pop(key)) for key in ("timestamp", "level", "event"))
    trace = said.pop("exception", None)
    line = " ".join([first, *(f"{key}={value}" for key, value in said.items())])
    return f"{line}\n{trace}" if trace else line


# Every line, debug lines as well, is there where a test fails. Without colours and columns a line
# costs a third: with them, logging was a fifth of what a test of an installation cost.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
        structlog.processors.format_exc_info,
        _plainly,
    ]
)


# A machine that stands still for a moment makes any example slow, and the drawing of it.
# What CI tries is the same each time; who runs the tests elsewhere tries something new.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("patient")

# Who runs the tests in the background of a script has Ctrl-C ignored, and so would have every
# program that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scenarios from the beginning, each beside shorter files; unit tests fill what is left.

    Processes take whole files, in this order. With the scenarios last, most processes would wait
    for one of them; with all of them first, their processes would fight for the processor.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:  # not by runs: a parameter of the session's mixes the files
        files.setdefault(item.path, []).append(item)
    long, middle, short = (
        [path for path in files if path.relative_to(_ROOT).parts[0] in names]
        for names in ({"scenarios"}, {"integration", "packaging", "openwebui", "n8n"}, {"unit"})
    )
    step = max(1, len(middle) // max(1, len(long)) // 2)
    order: list[Path] = []
    for path in long:
        order += [path, *middle[:step]]
        middle = middle[step:]
    items[:] = [item for path in (*order, *middle, *short) for item in files[path]]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres with pgvector, as its superuser."""
    try:
        with servers.postgres() as url:
            yield url
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """An empty database of the test's own."""
    url = servers.create_database(postgres_url)
    yield url
    servers.drop_database(postgres_url, url)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[servers.Rabbit]:
    """A RabbitMQ whose virtual hosts the tests make and delete."""
    try:
        with servers.rabbitmq() as rabbit:
            yield rabbit
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def local_rabbitmq(rabbitmq: servers.Rabbit) -> Iterator[LocalRabbit]:
    """A RabbitMQ node to freeze, kill and restart; whoever does it heals it again."""
    if isinstance(rabbitmq, LocalRabbit):
        yield rabbitmq
        return
    try:
        with LocalRabbit(management=True) as local:
            yield local
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def rabbitmq_url(rabbitmq: servers.Rabbit) -> Iterator[str]:
    """An empty virtual host of the test's own."""
    vhost = f"test-{secrets.token_hex(6)}"
    rabbitmq.add_vhost(vhost)
    yield rabbitmq.url(vhost)
    rabbitmq.delete_vhost(vhost)


async def _migrate(url: str) -> None:
    engine = create_engine(url)
    await migrate.upgrade(engine)
    await engine.dispose()


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database to copy."""
    url = servers.create_database(postgres_url)
    asyncio.run(_migrate(url))
    yield servers.database_name(url)
    servers.drop_database(postgres_url, url)


@pytest.fixture
def migrated_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    url = servers.create_database(postgres_url, template=migrated_template)
    yield url
    servers.drop_database(postgres_url, url)


@pytest.fixture(scope="module")
def shared_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A migrated database of the file's own."""
    url = servers.create_database(postgres_url, template=migrated_template)
    yield url
    servers.drop_database(postgres_url, url)


@pytest.fixture
async def engine(migrated_url: str) -> AsyncGenerator[AsyncEngine, None]:
    """An engine on a migrated database."""
    engine = create_engine(migrated_url, pool_size=5)
    yield engine
    await engine.dispose()


@pytest.fixture
async def tenant(engine: AsyncEngine) -> UUID:
    """A tenant."""
    async with engine.begin() as connection:
        return await tenants.ensure_tenant(connection, "acme")
