"""`millrace n8n` gives n8n what it needs, and refuses to give it more than that."""

import asyncio
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from bus import rabbitmq
from queue_schemas import topology
from tests.integration.cli.command_line import millrace

FAKE = """
import json, sys
from pathlib import Path
record = Path({record!r})
path = next((a.split("=", 1)[1] for a in sys.argv[1:] if a.startswith("--input=")), None)
found = {{"arguments": sys.argv[1:]}}
if path and Path(path).is_file():
    found["mode"] = oct(Path(path).stat().st_mode & 0o777)
    found["credentials"] = json.loads(Path(path).read_text())
elif path:
    found["files"] = sorted(p.name for p in Path(path).iterdir())
if sys.argv[1] == "list:workflow" and record.exists():
    lines = [json.loads(line)["arguments"] for line in record.read_text().splitlines()]
    published = [a[1].removeprefix("--id=") for a in lines if a[0] == "publish:workflow"]
    print("a line of the log", *published, sep=chr(10))
with record.open("a") as file:
    file.write(json.dumps(found) + chr(10))
if {fails!r} in sys.argv[1:]:
    print("some noise")
    print("The workflow cannot be published")
    sys.exit(1)
"""


def statement(url: str, text: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(text)
        await connection.close()

    asyncio.run(run())


@pytest.fixture
def user_url(migrated_url: str) -> Iterator[str]:
    """The database as a user in the role of workflows."""
    user = f"n8n_{secrets.token_hex(4)}"
    statement(migrated_url, f"CREATE USER {user} IN ROLE millrace_n8n PASSWORD 'only for tests'")
    parts = urlsplit(migrated_url)
    where = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{user}:only%20for%20tests@{where}"))
    statement(migrated_url, f"DROP USER {user}")


@pytest.fixture
def settings(user_url: str, rabbitmq_url: str) -> dict[str, str]:
    return {
        "MILLRACE_N8N_DATABASE_URL": user_url,
        "RABBITMQ_URL": rabbitmq_url,
        "MILLRACE_N8N_WEBHOOK_KEY": "only for tests, long",
        "MILLRACE_URL": "http://mill.example:8000",
        "MILLRACE_API_KEY": "mr-only-for-tests",
    }


def fake(folder: Path, fails: str = "") -> tuple[str, Path]:
    """A command that writes down how it was called."""
    script, record = folder / "n8n.py", folder / "record"
    script.write_text(FAKE.format(record=str(record), fails=fails))
    return f"{sys.executable} -S {script}", record


def test_it_imports_and_publishes_and_leaves_no_secret_behind(
    settings: dict[str, str], tmp_path: Path
) -> None:
    command, record = fake(tmp_path)
    for _ in range(2):
        done = millrace("n8n", "provision", "--n8n-command", command, **settings)
        assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in record.read_text().splitlines()]
    first = ["list:workflow", "import:credentials", "import:workflow", *["publish:workflow"] * 5]
    # What is published cannot be imported again.
    second = [first[0], *["unpublish:workflow"] * 5, *first[1:]]
    assert [call["arguments"][0] for call in calls] == [*first, *second]
    assert calls[1]["mode"] == "0o600"
    assert {each["type"] for each in calls[1]["credentials"]} >= {"postgres", "rabbitmq"}
    assert len(calls[2]["files"]) == 5
    given = Path(calls[1]["arguments"][1].removeprefix("--input="))
    assert not given.parent.exists()
    assert "only for tests" not in done.stdout + done.stderr

    async def depth() -> object:
        bus = await rabbitmq.connect(settings["RABBITMQ_URL"], name="tests")
        try:
            return await bus.depth(topology.N8N.name)
        finally:
            await bus.aclose()

    assert asyncio.run(depth()) is not None


def test_a_command_that_fails_is_named_with_what_it_said_last(
    settings: dict[str, str], tmp_path: Path
) -> None:
    command, _ = fake(tmp_path, fails="publish:workflow")
    done = millrace("n8n", "provision", "--n8n-command", command, **settings)
    assert done.returncode == 1
    assert "publish:workflow` failed: The workflow cannot be published" in done.stderr
    done = millrace("n8n", "provision", "--n8n-command", "n8n-that-is-nowhere", **settings)
    assert "there is no command 'n8n-that-is-nowhere'" in done.stderr


def test_a_user_who_may_do_more_is_refused_with_the_remedy(
    settings: dict[str, str], migrated_url: str, tmp_path: Path
) -> None:
    command, record = fake(tmp_path)
    mighty = settings | {"MILLRACE_N8N_DATABASE_URL": migrated_url}
    done = millrace("n8n", "provision", "--n8n-command", command, **mighty)
    assert done.returncode == 1
    assert "may do more than millrace_n8n" in done.stderr
    assert "CREATE USER n8n IN ROLE millrace_n8n" in done.stderr
    assert not record.exists()


def test_for_a_container_files_hold_no_secret_and_standard_output_does(
    settings: dict[str, str], tmp_path: Path
) -> None:
    done = millrace("n8n", "provision", "--print", str(tmp_path / "out"), **settings)
    assert done.returncode == 0, done.stderr
    name, _, value = done.stdout.strip().partition("=")
    assert name == "CREDENTIALS_OVERWRITE_DATA"
    assert json.loads(value)["httpBearerAuth"]["token"] == "mr-only-for-tests"
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) == 6
    assert not any("only-for-tests" in file.read_text() for file in files)
    assert "n8n publish:workflow --id=mrErrorHandling" in done.stderr


def test_a_dry_run_touches_nothing_and_shows_no_secret() -> None:
    away = {
        "MILLRACE_N8N_DATABASE_URL": "postgresql://n8n:sesame@127.0.0.1:1/x",
        "RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:1",
        "MILLRACE_N8N_WEBHOOK_KEY": "sesame-sesame-sesame",
        "MILLRACE_API_KEY": "mr-sesame",
    }
    done = millrace("n8n", "provision", "--dry-run", **away)
    assert done.returncode == 0, done.stderr
    assert "sesame" not in done.stdout
    assert "workflow mrErrorHandling" in done.stdout
    assert "run n8n import:workflow --separate" in done.stdout


def test_there_is_no_report_before_n8n_wrote_one(migrated_url: str) -> None:
    done = millrace("n8n", "report", DATABASE_URL=migrated_url)
    assert done.stdout.startswith("There is no report yet")
    statement(
        migrated_url,
        """
        INSERT INTO millrace.tenants (id, name) VALUES (gen_random_uuid(), 'acme');
        INSERT INTO millrace.reports (tenant_id, starts_at, ends_at, text)
        SELECT id, now() - interval '7 days', now(), '# acme' FROM millrace.tenants
        """,
    )
    done = millrace("n8n", "report", DATABASE_URL=migrated_url)
    assert done.stdout == "# acme\n"
