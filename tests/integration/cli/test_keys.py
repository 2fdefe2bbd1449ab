import asyncio
import json
import re

import pytest

from db import tenants
from db.tenants import StoredKey
from master.api.keys import digest_of, matches, new_key, prefix_of
from millrace import reach
from tests.integration.cli.command_line import millrace


@pytest.fixture
def migrated_url(database_url: str) -> str:
    done = millrace("migrate", DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert "migrated from an empty schema" in done.stdout
    return database_url


def stored(url: str, plain: str) -> StoredKey | None:
    async def find() -> StoredKey | None:
        async with reach.database(url, name="test") as engine, engine.connect() as connection:
            return await tenants.find_key(connection, prefix_of(plain))

    return asyncio.run(find())


def test_migrating_again_changes_nothing(migrated_url: str) -> None:
    again = millrace("migrate", DATABASE_URL=migrated_url)
    assert again.returncode == 0
    assert "was up to date" in again.stdout


def test_keys_need_a_migrated_database(database_url: str) -> None:
    done = millrace("keys", "list", DATABASE_URL=database_url)
    assert done.returncode == 1
    assert done.stderr == "millrace: the database was never migrated. Run `millrace migrate`.\n"


def test_a_master_needs_a_migrated_database(database_url: str) -> None:
    done = millrace("master", DATABASE_URL=database_url, RABBITMQ_URL="amqp://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == "millrace: the database was never migrated. Run `millrace migrate`.\n"


def test_a_key_is_created_listed_and_revoked(migrated_url: str) -> None:
    assert "There is no key yet" in millrace("keys", "list", DATABASE_URL=migrated_url).stdout
    created = millrace("keys", "create", "laptop", "--tenant", "anna", DATABASE_URL=migrated_url)
    plain = created.stdout.strip()
    assert re.fullmatch(r"mr-[A-Za-z0-9]{40}", plain)
    assert plain not in created.stderr
    found = stored(migrated_url, plain)
    assert found is not None
    assert matches(plain, found.digest)
    assert found.digest == digest_of(plain)

    shown = millrace("keys", "list", DATABASE_URL=migrated_url).stdout
    assert prefix_of(plain) in shown
    assert "laptop" in shown
    assert "anna" in shown
    assert plain not in shown
    assert max(map(len, shown.splitlines())) <= 80

    assert millrace("keys", "revoke", plain, DATABASE_URL=migrated_url).returncode == 0
    [listed] = json.loads(millrace("keys", "list", "--json", DATABASE_URL=migrated_url).stdout)
    assert listed["prefix"] == prefix_of(plain)
    assert listed["revoked_at"]

    again = millrace("keys", "revoke", plain, DATABASE_URL=migrated_url)
    assert again.returncode == 1
    assert f"no valid key begins with '{prefix_of(plain)}'" in again.stderr
    assert plain not in again.stderr


def test_a_key_is_revoked_with_those_that_it_made(migrated_url: str) -> None:
    plain = millrace("keys", "create", "laptop", DATABASE_URL=migrated_url).stdout.strip()
    made = new_key()

    async def make() -> None:
        async with (
            reach.database(migrated_url, name="test") as engine,
            engine.begin() as connection,
        ):
            assert await tenants.add_key_of(
                connection, prefix_of(plain), "in the console", made.prefix, made.digest
            )

    asyncio.run(make())
    assert f"└ {made.prefix}" in millrace("keys", "list", DATABASE_URL=migrated_url).stdout
    done = millrace("keys", "revoke", plain, DATABASE_URL=migrated_url)
    assert done.stdout == (
        f"{prefix_of(plain)} is revoked, and with it {made.prefix}, made with it in the console.\n"
    )
    listed = json.loads(millrace("keys", "list", "--json", DATABASE_URL=migrated_url).stdout)
    assert [(key["made_with"], bool(key["revoked_at"])) for key in listed] == [
        (None, True),
        (prefix_of(plain), True),
    ]


def test_a_key_without_a_name_is_refused(migrated_url: str) -> None:
    assert millrace("keys", "create", " ", DATABASE_URL=migrated_url).returncode == 2


def ensured(url: str, key: str) -> tuple[int, str]:
    done = millrace("keys", "ensure", DATABASE_URL=url, MILLRACE_API_KEY=key)
    assert key not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_key_that_was_made_elsewhere_becomes_known_once(migrated_url: str) -> None:
    plain = new_key().plain
    assert ensured(migrated_url, plain) == (0, f"{prefix_of(plain)} is made known.\n")
    assert ensured(migrated_url, plain) == (0, f"{prefix_of(plain)} is known.\n")
    found = stored(migrated_url, plain)
    assert found is not None
    assert matches(plain, found.digest)
    assert (found.tenant_name, found.name) == ("default", "installation")

    code, said = ensured(migrated_url, prefix_of(plain) + "x" * 32)
    assert code == 1
    assert "there is another key that begins with" in said

    assert millrace("keys", "revoke", plain, DATABASE_URL=migrated_url).returncode == 0
    code, said = ensured(migrated_url, plain)
    assert code == 1
    assert "was revoked on" in said


@pytest.mark.parametrize(
    "key", ["sk-123456789", "mr-short", "mr-" + "ä" * 40], ids=["theirs", "short", "letters"]
)
def test_what_is_no_key_of_ours_is_not_made_known(key: str) -> None:
    code, said = ensured("postgresql://127.0.0.1:1/x", key)
    assert code == 1
    assert "holds no key of ours: mr- and 40 letters and digits" in said


def test_ensuring_needs_a_key() -> None:
    done = millrace("keys", "ensure", DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert done.returncode == 1
    assert "MILLRACE_API_KEY is not set" in done.stderr
