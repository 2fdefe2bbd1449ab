"""While a collection is being written, those who want it too are told so, and chat goes on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from master.api import corpus_writes
from millrace.chaos.stack import until
from tests.integration.master.mill import Mill, a_script, installation

SPARSE = {"strategy": "sparse"}
CONNECTIONS = 3
"""For chat; as many wait for a collection."""


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill]:
    script = a_script(text="The mill turns.")
    settings = {"database_pool": CONNECTIONS, "ingest_seconds": 0.2, "ingest_at_once": 3}
    async with installation(migrated_url, script, **settings) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_writes, "LOCK_TIMEOUT", "500ms")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told to come again because the machine is slow."""
    monkeypatch.setattr(corpus_writes, "LOCK_TIMEOUT", "60s")


async def send(mill: Mill, *files: tuple[str, bytes], **fields: str) -> httpx2.Response:
    form = [("files", file) for file in files]
    return await mill.http.post("/v1/documents", files=form, data=SPARSE | fields)


async def document(mill: Mill, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = (await mill.http.get(f"/v1/documents/{identity}")).json()
    return found


async def ready(mill: Mill, identity: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        found = await document(mill, identity)
        return found if found["state"] == "ready" else None

    return await until(reached, 60)


@asynccontextmanager
async def held(mill: Mill) -> AsyncGenerator[None]:
    """Somebody holds the row of every collection."""
    async with mill.running.engine.begin() as connection:
        await connection.execute(text("SELECT 1 FROM millrace.collections FOR NO KEY UPDATE"))
        yield


@pytest.mark.usefixtures("patient")
async def test_those_who_wait_for_a_collection_do_not_stop_chat(mill: Mill) -> None:
    identity = (await send(mill, ("a.txt", b"one text"))).json()["data"][0]["id"]
    await ready(mill, identity)
    async with held(mill):
        waiting = [
            asyncio.create_task(mill.http.delete(f"/v1/documents/{identity}")) for _ in range(6)
        ]
        waiting.append(
            asyncio.create_task(
                mill.http.patch("/v1/collections/default", json={"language": "german"})
            )
        )
        await until(lambda: wait_in_the_database(mill, CONNECTIONS), 60)
        assert (await mill.ask()).status_code == 200
        assert not any(one.done() for one in waiting)
    answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {200, 404}, "one of them deleted it"


async def wait_in_the_database(mill: Mill, number: int) -> bool:
    query = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with mill.running.engine.connect() as connection:
        return bool(await connection.scalar(query) >= number)


@pytest.mark.usefixtures("impatient")
async def test_those_who_wait_too_long_for_a_collection_are_told_why(mill: Mill) -> None:
    identity = (await send(mill, ("a.txt", b"one text"))).json()["data"][0]["id"]
    await ready(mill, identity)
    async with held(mill):
        answers = await asyncio.gather(
            mill.http.delete(f"/v1/documents/{identity}"),
            mill.http.patch("/v1/collections/default", json={"language": "german"}),
        )
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        assert "being written" in answer.json()["error"]["message"]
        assert int(answer.headers["retry-after"]) > 0
    assert (await mill.http.delete(f"/v1/documents/{identity}")).status_code == 200


async def test_documents_that_wait_to_be_published_do_not_stop_chat(mill: Mill) -> None:
    await ready(mill, (await send(mill, ("a.txt", b"one"))).json()["data"][0]["id"])
    async with held(mill):
        files = [(f"{n}.txt", b"text %d" % n) for n in range(3)]
        sent = [each["id"] for each in (await send(mill, *files)).json()["data"]]

        async def storing() -> bool:
            found = [await document(mill, each) for each in sent]
            return all(each["stage"] == "store" for each in found)

        await until(storing, 60)
        async with asyncio.timeout(60):
            assert (await mill.ask()).status_code == 200
    for each in sent:
        await ready(mill, each)


@pytest.mark.usefixtures("patient")
async def test_what_comes_for_a_collection_that_is_just_deleted_makes_it_anew(mill: Mill) -> None:
    identity = (await send(mill, ("a.txt", b"one"))).json()["data"][0]["id"]
    await ready(mill, identity)
    async with mill.running.engine.begin() as connection:
        await connection.execute(text("DELETE FROM millrace.collections"))
        sending = asyncio.create_task(send(mill, ("b.txt", b"two")))
        await until(lambda: wait_in_the_database(mill, 1), 60)
    answer = await sending
    assert answer.status_code == 202, answer.text
    await ready(mill, answer.json()["data"][0]["id"])


@pytest.mark.usefixtures("patient")
async def test_the_same_files_in_any_order_do_not_wait_in_a_circle(mill: Mill) -> None:
    for turn in range(3):
        files = [(f"{n}.txt", b"turn %d, text %d" % (turn, n)) for n in range(40)]
        answers = await asyncio.gather(send(mill, *files), send(mill, *reversed(files)))
        assert [answer.status_code for answer in answers] == [202, 202], [
            answer.text[:200] for answer in answers
        ]
        first, second = (answer.json()["data"] for answer in answers)
        assert [each["id"] for each in first] == [each["id"] for each in reversed(second)]
