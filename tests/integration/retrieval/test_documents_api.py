"""`/v1/documents` over real HTTP: what is sent is stored, ingested, shown, followed and deleted."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from master.api.upload_room import UploadRoom
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests.integration.master.mill import Mill, a_script, installation

SPARSE = {"strategy": "sparse"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill]:
    async with installation(
        migrated_url,
        a_script(text="The mill turns."),
        max_document_bytes=100_000,
        max_upload_bytes=300_000,
        ingest_seconds=0.5,
        keep_alive_seconds=0.2,
    ) as made:
        yield made


async def send(mill: Mill, *files: tuple[str, bytes], **fields: str) -> httpx2.Response:
    form = [("files", file) for file in files]
    return await mill.http.post("/v1/documents", files=form, data=SPARSE | fields)


async def ended(mill: Mill, identity: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        found: dict[str, Any] = (await mill.http.get(f"/v1/documents/{identity}")).json()
        return found if found["state"] in {"ready", "failed"} else None

    return await until(reached, 30)


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_files_are_taken_and_soon_ready(mill: Mill) -> None:
    answer = await send(
        mill,
        ("a.md", b"# Mills\n\nA mill has a wheel."),
        ("b.txt", b"A race leads water."),
        collection="mills",
        metadata='{"year": 2026}',
    )
    assert answer.status_code == 202, answer.text
    first, second = answer.json()["data"]
    assert (first["name"], first["media_type"], first["duplicate"]) == (
        "a.md",
        "text/markdown",
        False,
    )
    done = await ended(mill, first["id"])
    assert done["state"] == "ready"
    assert done["progress"] == {"chunks": 1, "embedded": 0, "percent": 100.0}
    assert set(done["timings_ms"]) == {"parse", "chunk", "store"}
    assert (done["collection"], done["metadata"]) == ("mills", {"year": 2026})
    assert (await ended(mill, second["id"]))["error"] is None


async def test_the_same_content_is_the_same_document(mill: Mill) -> None:
    sent = (await send(mill, ("a.txt", b"one text"), ("b.txt", b"one text"))).json()["data"]
    assert sent[0]["id"] == sent[1]["id"]
    assert [each["duplicate"] for each in sent] == [False, True]
    await ended(mill, sent[0]["id"])
    again = (await send(mill, ("c.txt", b"one text"))).json()["data"][0]
    assert (again["id"], again["duplicate"], again["state"]) == (sent[0]["id"], True, "ready")


async def test_text_is_taken_as_json(mill: Mill) -> None:
    body = {"text": "A stone grinds.", "name": "stone.txt", "metadata": {"a": [1]}} | SPARSE
    answer = await mill.http.post("/v1/documents", json=body)
    assert answer.status_code == 202, answer.text
    sent = answer.json()["data"][0]
    assert (sent["origin"], sent["collection"], sent["bytes"]) == ("text", "default", 15)
    assert (await ended(mill, sent["id"]))["state"] == "ready"


async def test_a_url_of_this_machine_fails_without_saying_why(mill: Mill) -> None:
    body = {"url": f"{mill.url}/health"} | SPARSE
    sent = (await mill.http.post("/v1/documents", json=body)).json()["data"][0]
    done = await ended(mill, sent["id"])
    assert (done["state"], done["error"]["code"]) == ("failed", "url_not_allowed")
    retried = await mill.http.post(f"/v1/documents/{sent['id']}/retry")
    assert retried.status_code == 200
    assert retried.json()["state"] in {"waiting", "running"}  # the loop may have it already
    assert (await ended(mill, sent["id"]))["state"] == "failed"


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("evil.pdf", b"MZ\x90\x00" + bytes(100), (415, "bad_media_type")),
        ("picture.docx", b"\x89PNG\r\n\x1a\n" + bytes(100), (415, "bad_media_type")),
        ("movie.mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(100), (415, "bad_media_type")),
        ("empty.txt", b"", (400, "empty_document")),
        ("large.txt", b"x " * 60_000, (413, "request_too_large")),
    ],
)
async def test_what_cannot_be_read_is_refused_before_anything_is_stored(
    mill: Mill, name: str, body: bytes, expected: tuple[int, str]
) -> None:
    answer = await send(mill, ("good.txt", b"good"), (name, body))
    assert code(answer) == expected
    assert answer.json()["error"]["param"] == "files[1]"
    assert await mill.count("documents") == 0
    assert await mill.count("collections") == 0


async def test_too_much_at_once_is_refused(mill: Mill) -> None:
    many = [(f"{n}.txt", b"text %d" % n) for n in range(101)]
    assert code(await send(mill, *many)) == (400, "invalid_form")
    large = [(f"{n}.txt", b"x " * 45_000) for n in range(4)]
    assert code(await send(mill, *large)) == (413, "request_too_large")
    assert await mill.count("documents") == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"collection": "Not A Name"}, "collection"),
        ({"collection": ".."}, "collection"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata": '{"a": NaN}'}, "metadata"),
        ({"metadata": '{"a": "\\u0000"}'}, "metadata"),
        ({"metadata": json.dumps({"a": "x" * 20_000})}, "metadata"),
        ({"strategy": "guessing"}, "strategy"),
        ({"strategy": "hybrid"}, "strategy"),
        ({"language": "klingon"}, "language"),
        ({"language": "'; DROP TABLE"}, "language"),
        ({"chunking": '{"size": 0}'}, "chunking.size"),
        ({"chunking": '{"size": 5, "overlap": 3}'}, "chunking.overlap"),
        ({"chunking": '{"size": 2001}'}, "chunking.size"),
        ({"chunking": '{"method": "dice"}'}, "chunking.method"),
        ({"colour": "blue"}, "colour"),
    ],
)
async def test_settings_that_make_no_sense_are_named(
    mill: Mill, fields: dict[str, str], param: str
) -> None:
    answer = await send(mill, ("a.txt", b"text"), **fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert await mill.count("documents") == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "a", "url": "https://example.org"}, "text"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"text": 7}, "text"),
        ({"text": "a", "name": ""}, "name"),
        ({"text": "a", "more": 1}, "more"),
    ],
)
async def test_json_that_makes_no_sense_is_refused(
    mill: Mill, body: dict[str, Any], param: str
) -> None:
    answer = await mill.http.post("/v1/documents", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


async def test_bodies_that_are_no_form_are_refused(mill: Mill) -> None:
    async def post(body: bytes, media_type: str) -> tuple[int, str]:
        headers = {"content-type": media_type}
        return code(await mill.http.post("/v1/documents", content=body, headers=headers))

    form = "multipart/form-data"
    assert await post(b"text", "text/plain") == (415, "unsupported_media_type")
    assert await post(b"text", form) == (400, "invalid_form")
    assert await post(b"garbage", f"{form}; boundary=x") == (400, "invalid_form")
    nothing = b'--x\r\nContent-Disposition: form-data; name="collection"\r\n\r\na\r\n--x--\r\n'
    assert await post(nothing, f"{form}; boundary=x") == (400, "missing_required_parameter")
    no_name = nothing.replace(b'name="collection"', b'name="files"')
    assert await post(no_name, f"{form}; boundary=x") == (400, "invalid_value")


async def test_a_collection_that_is_different_is_not_quietly_used(mill: Mill) -> None:
    await send(mill, ("a.txt", b"text"))
    answer = await send(mill, ("b.txt", b"other"), language="german")
    assert code(answer) == (409, "collection_differs")
    assert "PATCH /v1/collections/default" in answer.json()["error"]["message"]
    assert await mill.count("documents") == 1


async def test_documents_are_listed_in_pages_and_by_state(mill: Mill) -> None:
    for n in range(5):
        sent = (await send(mill, (f"{n}.txt", b"text %d" % n))).json()["data"][0]
        await ended(mill, sent["id"])
    names: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = (await mill.http.get("/v1/documents", params={"limit": 2, **after})).json()
        names += [each["name"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["data"][-1]["id"]}
    assert names == [f"{n}.txt" for n in reversed(range(5))]

    async def listed(**query: Any) -> int:
        return len((await mill.http.get("/v1/documents", params=query)).json()["data"])

    assert await listed(state="ready") == 5
    assert await listed(state="failed") == 0
    assert await listed(collection="default") == 5
    assert await listed(collection="other") == 0
    for query in ({"limit": 0}, {"limit": 201}, {"state": "odd"}, {"collection": "A B"}):
        assert (await mill.http.get("/v1/documents", params=query)).status_code == 400, query
    for last in ("x", NOBODY):
        assert code(await mill.http.get("/v1/documents", params={"after": last}))[0] == 404


async def test_a_document_is_followed_to_its_end(mill: Mill) -> None:
    sent = (await send(mill, ("a.txt", b"A mill."))).json()["data"][0]
    answer = await mill.http.get(f"/v1/documents/{sent['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    assert {event["event"] for event in events} == {"progress"}
    states = [json.loads(event["data"])["state"] for event in events]
    assert states[-1] == "ready"
    assert "ready" not in states[:-1]


async def test_who_follows_a_document_that_waits_gets_signs_of_life(mill: Mill) -> None:
    sent = (await send(mill, ("a.txt", b"A mill."))).json()["data"][0]
    await ended(mill, sent["id"])
    engine = mill.running.engine
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE millrace.documents SET state = 'waiting', ready_at = NULL, "
            "available_at = now() + interval '1 hour'"
        )
    async with mill.http.stream("GET", f"/v1/documents/{sent['id']}/events") as answer:
        seen = ""
        async for text in answer.aiter_text():
            seen += text
            if ": ping" in seen:
                break
    assert '"state":"waiting"' in seen


async def test_a_deleted_document_is_gone_with_its_chunks(mill: Mill) -> None:
    sent = (await send(mill, ("a.txt", b"A mill."))).json()["data"][0]
    await ended(mill, sent["id"])
    path = f"/v1/documents/{sent['id']}"
    assert code(await mill.http.post(f"{path}/retry")) == (409, "not_failed")
    answer = await mill.http.delete(path)
    assert answer.json() == {"id": sent["id"], "object": "document", "deleted": True}
    for table in ("documents", "chunks", "chunk_terms", "terms", "document_bodies"):
        assert await mill.count(table) == 0, table
    assert code(await mill.http.delete(path)) == (404, "not_found")


async def test_what_is_anothers_or_no_id_is_not_there(mill: Mill) -> None:
    sent = (await send(mill, ("a.txt", b"A mill."))).json()["data"][0]
    await ended(mill, sent["id"])
    other = await make_key(mill.database_url, "other", "tests")
    headers = {"Authorization": f"Bearer {other}"}
    asked = [(sent["id"], headers), (NOBODY, {}), ("x", {}), ("%00", {})]
    for identity, who in asked:
        path = f"/v1/documents/{identity}"
        for method, where in (
            ("GET", path),
            ("GET", f"{path}/events"),
            ("DELETE", path),
            ("POST", f"{path}/retry"),
        ):
            answer = await mill.http.request(method, where, headers=who)
            assert code(answer) == (404, "not_found"), (method, where)
    listed = (await mill.http.get("/v1/documents", headers=headers)).json()
    assert listed["data"] == []
    assert await mill.count("documents") == 1
    for method, where in (("GET", "/v1/documents"), ("POST", "/v1/documents")):
        refused = await mill.http.request(method, where, headers={"Authorization": "Bearer no"})
        assert refused.status_code == 401


async def test_a_client_that_leaves_in_the_middle_of_a_file_leaves_nothing(mill: Mill) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        yield b"text " * 100
        await asyncio.sleep(60)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await mill.http.post("/v1/documents", content=endless(), headers=headers)
    assert (await send(mill, ("b.txt", b"text"))).status_code == 202
    assert await mill.count("documents") == 1


async def test_a_document_replaces_those_of_its_name_if_it_is_to(mill: Mill) -> None:
    first = (await send(mill, ("a.txt", b"one"))).json()["data"][0]
    await ended(mill, first["id"])
    kept = (await send(mill, ("a.txt", b"two"), replace="false")).json()["data"][0]
    assert (first["replace"], kept["replace"]) == (False, False)
    await ended(mill, kept["id"])
    assert await mill.count("documents") == 2
    newer = (await send(mill, ("a.txt", b"three"), replace="true")).json()["data"][0]
    assert newer["replace"]
    assert (await ended(mill, newer["id"]))["state"] == "ready"
    assert await mill.count("documents") == 1
    body = {"text": "four", "name": "a.txt", "replace": True} | SPARSE
    last = (await mill.http.post("/v1/documents", json=body)).json()["data"][0]
    await ended(mill, last["id"])
    (left,) = (await mill.http.get("/v1/documents")).json()["data"]
    assert left["id"] == last["id"]
    again = (await send(mill, ("a.txt", b"four"), replace="true")).json()["data"][0]
    assert (again["id"], again["duplicate"], again["state"]) == (last["id"], True, "ready")
    assert await mill.count("documents") == 1


async def test_of_two_of_one_name_in_one_form_the_last_one_stays(mill: Mill) -> None:
    answer = await send(mill, ("a.txt", b"one"), ("a.txt", b"two"), replace="true")
    await ended(mill, answer.json()["data"][1]["id"])

    async def alone() -> bool:
        return await mill.count("documents") == 1

    await until(alone, 60)
    (left,) = (await mill.http.get("/v1/documents")).json()["data"]
    assert left["bytes"] == 3
    assert left["id"] == answer.json()["data"][1]["id"]


@pytest.mark.parametrize("said", ["maybe", "", "1"], ids=["a word", "nothing", "a number"])
async def test_replace_is_true_or_false(mill: Mill, said: str) -> None:
    answer = await send(mill, ("a.txt", b"one"), replace=said)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "replace")
    assert await mill.count("documents") == 0


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("decisions/0001.md", "decisions/0001.md"),
        (r"decisions\0001.md", "decisions/0001.md"),
        ("/etc/../../a.md", "etc/a.md"),
        ("C:/notes/a.md", "notes/a.md"),
        ("./ .. /a.md", "a.md"),
    ],
    ids=["relative", "backslash", "climbing", "drive", "spaces"],
)
async def test_a_path_is_only_a_name(mill: Mill, sent: str, kept: str) -> None:
    answer = await send(mill, (sent, b"one"))
    assert answer.status_code == 202, answer.text
    assert answer.json()["data"][0]["name"] == kept


async def test_documents_are_listed_by_name_or_beginning_of_id(mill: Mill) -> None:
    sent = (await send(mill, ("a.txt", b"one"), ("b.txt", b"two"))).json()["data"]

    async def found(match: str) -> list[str]:
        answer = await mill.http.get("/v1/documents", params={"match": match})
        assert answer.status_code == 200, answer.text
        return [each["name"] for each in answer.json()["data"]]

    assert await found("b.txt") == ["b.txt"]
    assert await found(sent[0]["id"][:13]) == ["a.txt"]
    assert await found("c.txt") == []
    assert await found("") == []
    refused = await mill.http.get("/v1/documents", params={"match": "a\0"})
    assert refused.status_code == 400


async def test_uploads_that_are_under_way_hold_no_connection(mill: Mill) -> None:
    begun: list[int] = []
    end = asyncio.Event()

    async def slowly(number: int) -> httpx2.Response:
        async def body() -> AsyncGenerator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="strategy"\r\n\r\nsparse\r\n'
            begun.append(number)
            await end.wait()
            yield (
                b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
                b"text %d\r\n--x--\r\n" % number
            )

        headers = {"content-type": "multipart/form-data; boundary=x"}
        return await mill.http.post("/v1/documents", content=body(), headers=headers)

    sending = [asyncio.create_task(slowly(number)) for number in range(20)]

    async def all_begun() -> bool:
        return len(begun) == 20

    await until(all_begun, 30)
    assert (await mill.http.get("/v1/documents")).status_code == 200
    assert (await mill.http.get("/v1/collections")).status_code == 200
    end.set()
    assert {answer.status_code for answer in await asyncio.gather(*sending)} == {202}
    assert await mill.count("documents") == 20


async def test_an_upload_that_finds_no_room_for_long_is_told_to_come_again(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_vain(room: UploadRoom, count: int) -> None:
        raise TimeoutError

    monkeypatch.setattr(UploadRoom, "_take", in_vain)
    answer = await send(mill, ("a.txt", b"text"))
    assert code(answer) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert await mill.count("documents") == 0


async def test_a_text_that_is_a_url_is_another_document_than_what_is_there(mill: Mill) -> None:
    url = f"{mill.url}/health"
    sent = [
        (await mill.http.post("/v1/documents", json={field: url} | SPARSE)).json()["data"][0]
        for field in ("text", "url")
    ]
    assert sent[0]["id"] != sent[1]["id"]
    assert [each["duplicate"] for each in sent] == [False, False]
