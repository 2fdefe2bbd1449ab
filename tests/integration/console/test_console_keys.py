"""What a key may do to keys: of one that leaked nothing must be left once it is revoked."""

import re
from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx2
import pytest
import pytest_asyncio

from db import tenants
from master.app import create_app
from millrace.one_machine import make_key
from tests.integration.console.browsing import Person, a_tenant, signed_in, words
from tests.integration.master.mill import Mill, a_script, installation

HOSTILE = "<script>alert(1)</script>"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(shared_url: str) -> AsyncGenerator[Mill]:
    async with installation(shared_url, a_script()) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def neighbour(installed: Mill) -> AsyncGenerator[Person]:
    async with a_tenant(installed) as mill, signed_in(mill.url, mill.key) as made:
        yield made


async def made_by(person: Person, name: str = "made") -> str:
    """A key that somebody makes in the console."""
    page = await person.post("/console/usage/keys", 201, name=name)
    found = re.search(r'<code id="made-key">(mr-\w{40})</code>', page.text)
    assert found is not None
    return found[1]


async def opens(mill: Mill, key: str) -> bool:
    """Whether the API takes it."""
    answer = await mill.http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def revoked(mill: Mill, key: str) -> None:
    """As `millrace keys revoke` does it, and after the seconds that masters take to notice."""
    async with mill.running.engine.begin() as connection:
        assert await tenants.revoke_key(connection, key[:11])


async def name_of(mill: Mill) -> str:
    async with mill.running.engine.connect() as connection:
        found = await tenants.find_key(connection, mill.key[:11])
    assert found is not None
    return found.tenant_name


async def test_a_key_is_made_shown_once_and_revoked(mill: Mill, person: Person) -> None:
    made = await person.post("/console/usage/keys", 201, name=HOSTILE)
    assert HOSTILE not in made.text
    plain = words(made.text.split('id="made-key"')[1]).split()[0].removeprefix(">")
    page = await person.get("/console/usage")
    assert plain not in page
    assert f"with {mill.key[:11]}" in words(page)
    assert await opens(mill, plain)
    await person.post(f"/console/usage/keys/{plain[:11]}/revoke")
    assert not await opens(mill, plain)
    assert "revoked" in words(await person.get("/console/usage"))
    for name in ("", "  ", "x" * 101, "two\nlines"):
        await person.post("/console/usage/keys", 400, name=name)


async def test_keys_of_others_are_neither_shown_nor_revoked(
    mill: Mill, person: Person, neighbour: Person
) -> None:
    theirs = await made_by(person)
    page = await neighbour.get("/console/usage")
    for key in (mill.key, theirs):
        assert key[:11] not in page
        await neighbour.post(f"/console/usage/keys/{key[:11]}/revoke", 404)
        assert await opens(mill, key)
    await neighbour.post("/console/usage/keys/nothing/revoke", 404)


async def test_what_a_leaked_key_made_is_revoked_with_it(mill: Mill) -> None:
    leaked = await make_key(mill.database_url, await name_of(mill), "leaked")
    async with signed_in(mill.url, leaked) as thief:
        second = await made_by(thief, "Open WebUI")
        async with signed_in(mill.url, second) as again:
            await revoked(mill, leaked)
            for held in (leaked, second):
                assert not await opens(mill, held)
            before = await mill.count("api_keys")
            for session in (thief, again):
                assert (await session.http.get("/console")).status_code == 303
                await session.post("/console/usage/keys", name="third")
            assert await mill.count("api_keys") == before
    assert await opens(mill, mill.key)


async def test_a_key_that_a_key_made_makes_none_and_revokes_none(
    mill: Mill, person: Person
) -> None:
    second, third = await made_by(person, "leaks"), await made_by(person, "another")
    async with signed_in(mill.url, second) as thief:
        assert "make and revoke no others" in words(await thief.get("/console/usage"))
        refused = await thief.post("/console/usage/keys", 403, name="a foothold")
        assert "makes no others" in words(refused.text)
        for key in (mill.key, second, third):
            await thief.post(f"/console/usage/keys/{key[:11]}/revoke", 403)
            assert await opens(mill, key)


async def test_a_leaked_key_locks_nobody_out(mill: Mill, person: Person) -> None:
    leaked = await make_key(mill.database_url, await name_of(mill), "leaked")
    colleagues = await made_by(person)
    async with signed_in(mill.url, leaked) as thief:
        page = await thief.get("/console/usage")
        assert "/revoke" not in page
        for key in (mill.key, colleagues, leaked):  # many programs may have the same one
            assert key[:11] in page
            refused = await thief.post(f"/console/usage/keys/{key[:11]}/revoke", 403)
            assert "millrace keys revoke" in words(refused.text)
            assert await opens(mill, key)


async def test_who_is_revoked_makes_no_key_in_the_seconds_until_masters_notice(mill: Mill) -> None:
    leaked = await make_key(mill.database_url, await name_of(mill), "leaked")
    settings = mill.running.settings.model_copy(update={"key_cache_seconds": 3600.0})
    slow = create_app(replace(mill.running, settings=settings))
    async with (
        signed_in(mill.url, leaked) as thief,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(slow), base_url=mill.url) as http,
    ):
        http.cookies = thief.http.cookies
        at_the_slow_one = Person(http, thief.token)
        await at_the_slow_one.get("/console/usage")
        await revoked(mill, leaked)
        await at_the_slow_one.get("/console/usage")
        before = await mill.count("api_keys")
        refused = await at_the_slow_one.post("/console/usage/keys", 403, name="a foothold")
        assert "it was revoked" in words(refused.text)
        assert await mill.count("api_keys") == before
