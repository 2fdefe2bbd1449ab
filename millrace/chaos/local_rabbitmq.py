"""A private RabbitMQ node: a process of this machine to stop, kill and freeze at will.

It lives in a temporary directory on free ports, touches nothing system-wide, and dies with the
process that made it.
"""

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from millrace.chaos.machine import (
    Unavailable,
    accepts,
    dismiss,
    free_ports,
    guard,
    http,
    kill_group,
)

START_SECONDS: Final = 90
DELETE_AFTER_SECONDS: Final = 10


class LocalRabbit:
    """A RabbitMQ node of our own: start, stop, kill, freeze and restart it at will.

    It dies with the process that made it, however that ends.
    """

    def __init__(self, *, management: bool = False, conf: str = "") -> None:
        self._server = _find_rabbitmq_server()
        self._root = Path(tempfile.mkdtemp(prefix="millrace-rabbitmq-"))
        self._port, distribution, self._epmd_port, self._http_port = free_ports(4)
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
        if self._process is None:
            raise RuntimeError("the node is not running")
        return self._process.pid

    @property
    def management_url(self) -> str:
        """The HTTP API, with user and password."""
        if not self._management:
            raise RuntimeError("make it with management=True")
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
        end = time.monotonic() + 1
        while not _stands(self.pid) and time.monotonic() < end:
            time.sleep(0.005)  # its threads stop one by one, and one may still answer

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
            http("PUT", f"{self.management_url}/api/vhosts/{quote(vhost, safe='')}")
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
            http("DELETE", f"{self.management_url}/api/vhosts/{quote(vhost, safe='')}")
        else:
            self.rabbitmqctl("delete_vhost", vhost)

    def close(self) -> None:
        """Kill the node, forget its data."""
        atexit.unregister(self.close)
        self.kill()
        kill_group(self._epmd, signal.SIGKILL)
        for each in self._guards:
            dismiss(each)
        self._guards.clear()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            kill_group(self._process, signal.SIGCONT)  # a frozen group takes no SIGTERM
            kill_group(self._process, number)
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
        self._guards.append(guard(f"-{process.pid}", "KILL", self._root))
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
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (self._root / "output").read_text(errors="replace")[-2000:]
                raise Unavailable(f"rabbitmq-server did not come up:\n{tail}")
            time.sleep(0.05)


def _find_rabbitmq_server() -> Path:
    # Debian's command on the PATH wants to become the system's user; the one beside it does not.
    places = ["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath)]
    found = shutil.which("rabbitmq-server", path=os.pathsep.join(places))
    if found is None:
        raise Unavailable(
            "there is no RabbitMQ on this machine: run `apt-get install rabbitmq-server`"
        )
    return Path(found)


def _stands(pid: int) -> bool:
    """Whether all threads of a process are stopped; where nobody can tell, they are."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            states.append(stat.read_text("ascii", "replace").rpartition(")")[2].split()[0])
    return all(state in "Tt" for state in states)
