"""The real n8n as a process of this machine, with a stack of Millrace to work on."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx2

from millrace.chaos.machine import dismiss, free_ports, guard
from millrace.chaos.stack import Stack

PROGRAM_ENV = "MILLRACE_TEST_N8N"
WEBHOOK_KEY = secrets.token_hex(16)
START_SECONDS = 120.0
RUN_SECONDS = 120.0

QUIET = {
    "N8N_DIAGNOSTICS_ENABLED": "false",
    "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
    "N8N_TEMPLATES_ENABLED": "false",
    "N8N_DYNAMIC_BANNERS_ENABLED": "false",
    "N8N_PERSONALIZATION_ENABLED": "false",
    "N8N_COMMUNITY_PACKAGES_ENABLED": "false",
    "N8N_LICENSE_AUTO_RENEW_ENABLED": "false",
    "N8N_AI_ENABLED": "false",
    "N8N_DISABLED_MODULES": "mcp-registry",
    "EXTERNAL_FRONTEND_HOOKS_URLS": "",
}
STEADY = {
    "N8N_LISTEN_ADDRESS": "127.0.0.1",
    "N8N_HOST": "127.0.0.1",
    "N8N_RUNNERS_BROKER_LISTEN_ADDRESS": "127.0.0.1",
    "N8N_SECURE_COOKIE": "false",
    "N8N_DISABLE_UI": "true",
    "N8N_BLOCK_ENV_ACCESS_IN_NODE": "true",
    "N8N_USE_WORKFLOW_PUBLICATION_SERVICE": "false",
    "N8N_GRACEFUL_SHUTDOWN_TIMEOUT": "10",
    "EXECUTIONS_TIMEOUT": "60",
    "GENERIC_TIMEZONE": "UTC",
}


def with_user(url: str, user: str, password: str) -> str:
    """The same database as another user."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{where}"))


@dataclass
class RealN8n:
    """One n8n: its commands, and its server, which may be stopped and started again."""

    program: str
    folder: Path
    database_url: str
    """Of its own."""
    settings: Mapping[str, str]
    """What `millrace n8n provision` reads."""
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    _process: subprocess.Popen[bytes] | None = None
    _guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its webhooks are."""
        return f"http://127.0.0.1:{self.ports[0]}"

    def environment(self, broker_port: int) -> dict[str, str]:
        """For its server and for its commands, which run beside it."""
        database = urlsplit(self.database_url)
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("N8N_", "DB_"))}
        return {
            **{k: v for k, v in ours.items() if not k.lower().endswith("_proxy")},
            **QUIET,
            **STEADY,
            "N8N_USER_FOLDER": str(self.folder),
            "N8N_ENCRYPTION_KEY": "only for tests",
            "N8N_PORT": str(self.ports[0]),
            "N8N_RUNNERS_BROKER_PORT": str(broker_port),
            "DB_TYPE": "postgresdb",
            "DB_POSTGRESDB_HOST": database.hostname or "",
            "DB_POSTGRESDB_PORT": str(database.port),
            "DB_POSTGRESDB_DATABASE": database.path[1:],
            "DB_POSTGRESDB_USER": database.username or "",
            "DB_POSTGRESDB_PASSWORD": database.password or "",
            **self.settings,
        }

    def provision(self) -> str:
        """What an operator runs; returns what it said."""
        done = subprocess.run(
            [".venv/bin/millrace", "n8n", "provision", "--n8n-command", self.program],
            env=self.environment(self.ports[2]),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Start the server; returns when its webhook is registered."""
        with (self.folder / "n8n.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self.program, "start"],
                env=self.environment(self.ports[1]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._guard = guard(f"-{self._process.pid}", "KILL")
        end = time.monotonic() + START_SECONDS
        # Its health check is good long before its webhooks are there.
        while self._ask_webhook() != 403:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.5)

    def _ask_webhook(self) -> int:
        try:
            with httpx2.Client(trust_env=False) as http:
                return http.post(f"{self.url}/webhook/millrace-feedback", json={}).status_code
        except httpx2.HTTPError:
            return 0

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None
        if self._guard is not None:
            dismiss(self._guard)
            self._guard = None

    def log(self) -> str:
        """What the server said."""
        return (self.folder / "n8n.log").read_text(errors="replace")[-8000:]

    async def run(self, workflow: str) -> str:
        """Run a workflow by hand; returns its status as n8n stored it."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            "execute",
            f"--id={workflow}",
            # The default one was seen to crash the command after its work was done.
            env={**self.environment(self.ports[3]), "N8N_EXPRESSION_ENGINE": "legacy"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
        # Its exit code is not to be trusted; the database is.
        rows = await self.rows(
            'SELECT status FROM execution_entity WHERE "workflowId" = $1 AND mode = $2'
            " ORDER BY id DESC LIMIT 1",
            workflow,
            "cli",
        )
        assert rows, said.decode(errors="replace")[-4000:]
        status = str(rows[0]["status"])
        with (self.folder / "execute.log").open("ab") as log:
            log.write(said)
        return status

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """What n8n's own database has."""
        return await rows(self.database_url, query, *values)


async def rows(url: str, query: str, *values: Any) -> list[Any]:
    """What a database has."""
    connection = await asyncpg.connect(url)
    try:
        found: list[Any] = await connection.fetch(query, *values)
    finally:
        await connection.close()
    return found


class AlertBoard:
    """An ASGI application that alerts are sent to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if self.status == 200:
            self.texts.append(json.loads(body)["text"])
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@dataclass
class Site:
    """All of it."""

    stack: Stack
    n8n: RealN8n
    alerts: AlertBoard
    open_webui: Any

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """What Millrace's database has."""
        return await rows(self.stack.database_url, query, *values)

    async def ask(self, text: str, model: str = "mill", **headers: str) -> str:
        """The id of a request that has ended."""
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        async with self.stack.http() as http:
            answer = await http.post("/v1/chat/completions", json=body, headers=headers)
        return str(answer.headers["x-millrace-request-id"])

    async def say(self, note: Any, key: str = WEBHOOK_KEY) -> httpx2.Response:
        """Call the webhook."""
        headers = {"X-Millrace-Webhook-Key": key}
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            return await http.post(
                f"{self.n8n.url}/webhook/millrace-feedback", json=note, headers=headers
            )
