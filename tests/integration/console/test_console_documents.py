"""Documents and search in the console, over real HTTP."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests.integration.console.browsing import Person, signed_in, tenant_of, words
from tests.integration.master.mill import Mill, a_script, installation

PATH = "/console/documents"
SEARCH = "/console/search"
HOSTILE = '<script>alert(1)</script>"onload=x.txt'

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(shared_url: str) -> AsyncGenerator[Mill]:
    async with installation(
        shared_url,
        a_script(),
        max_document_bytes=100_000,
        max_upload_bytes=300_000,
        ingest_seconds=0.5,
    ) as made:
        yield made


async def upload(
    person: Person, *files: tuple[str, bytes], headers: dict[str, str] | None = None, **form: str
) -> httpx2.Response:
    said = {"csrf": person.token, "collection": "mills", "strategy": "sparse", **form}
    sent = [("files", file) for file in files]
    return await person.http.post(PATH, data=said, files=sent, headers=headers)


async def ended(mill: Mill, name: str) -> dict[str, Any]:
    """The document of that name, once it is ready or has failed."""

    async def reached() -> dict[str, Any] | None:
        [found] = (await mill.http.get("/v1/documents", params={"match": name})).json()["data"]
        return found if found["state"] in {"ready", "failed"} else None

    return await until(reached, 30)


async def test_files_are_uploaded_listed_shown_and_deleted(mill: Mill, person: Person) -> None:
    assert "There are no documents yet." in await person.get(PATH)
    sent = await upload(
        person,
        ("a.md", b"# Mills\n\nA mill has a wheel."),
        ("b.txt", b"A race leads water."),
        chunk_method="sentences",
        chunk_size="200",
        embedding_model="",
    )
    assert sent.status_code == 303, sent.text
    assert sent.headers["location"] == f"{PATH}?collection=mills&sent=2&known=0"
    listed = words(await person.get(sent.headers["location"]))
    assert "2 documents were taken." in listed
    assert "sparse sentences, 200 words, english" in listed
    made = await ended(mill, "a.md")
    page = await person.get(f"{PATH}/{made['id']}")
    assert "Parse" in words(page)
    assert "state-ready-document" in page
    again = await upload(person, ("a.md", b"# Mills\n\nA mill has a wheel."))
    assert "of which 1 was there already" in words(await person.get(again.headers["location"]))
    gone = await person.post(f"{PATH}/{made['id']}/delete")
    assert "The document is deleted." in await person.get(gone.headers["location"])
    await person.get(f"{PATH}/{made['id']}", status=404)
    await person.post(f"{PATH}/{made['id']}/delete", status=404)


async def test_a_script_that_uploads_is_told_where_to_go_or_what_is_wrong(
    mill: Mill, person: Person
) -> None:
    script = {"hx-request": "true", "x-csrf-token": person.token}
    sent = await upload(person, ("a.txt", b"A mill."), csrf="", headers=script)
    assert (sent.status_code, sent.content) == (204, b"")
    assert sent.headers["hx-redirect"] == f"{PATH}?collection=mills&sent=1&known=0"
    bad = await upload(person, ("a.exe", b"MZ\x90\x00" + bytes(100)), headers=script)
    assert bad.status_code == 415
    assert 'role="alert"' in bad.text
    assert "<html" not in bad.text
    files = [("a.txt", b"A mill."), ("b.exe", b"MZ\x90\x00" + bytes(100)), ("c.txt", b"")]
    some = words((await upload(person, *files, headers=script)).text)
    assert "none of the 3 files was taken: 'b.exe': " in some
    assert "; 'c.txt': " in some


async def test_what_the_api_refuses_is_refused_with_the_same_words(
    mill: Mill, person: Person
) -> None:
    for body, form, status, said in (
        (b"x " * 60_000, {}, 413, "larger than 100000 bytes"),
        (b"", {}, 400, "empty_document"),
        (b"A mill.", {"collection": "No good name!"}, 400, "collection"),
        (b"A mill.", {"chunk_size": "many"}, 400, "must be a whole number"),
        (b"A mill.", {"strategy": "magic"}, 400, "strategy"),
        (b"A mill.", {"language": "no\0ne"}, 400, "NUL"),
        (b"A mill.", {"csrf": "forged"}, 403, "not of this session"),
    ):
        answer = await upload(person, ("a.txt", body), **form)
        assert answer.status_code == status, form
        assert said in words(answer.text)
    cross = await upload(person, ("a.txt", b"x"), headers={"origin": "https://evil.example"})
    assert cross.status_code == 403
    person.http.cookies.clear()
    stranger = await upload(person, ("a.txt", b"x"))
    assert stranger.headers["location"].startswith("/console/login?")
    query = "SELECT name FROM millrace.documents WHERE tenant_id = :tenant"
    assert await mill.rows(query, tenant=await tenant_of(mill)) == []


async def test_an_address_that_fails_says_what_to_do_and_can_be_tried_again(
    mill: Mill, person: Person
) -> None:
    await person.post(
        f"{PATH}/url", url=f"{mill.url}/health", name="health", collection="web", strategy="sparse"
    )
    made = await ended(mill, "health")
    page = await person.get(f"{PATH}/{made['id']}")
    assert "Only public web addresses are fetched" in page
    assert "Try again" in page
    await person.post(f"{PATH}/{made['id']}/retry")
    await ended(mill, "health")
    bad = await person.post(f"{PATH}/url", status=400, url="file:///etc/passwd", collection="web")
    assert "http:// or https://" in words(bad.text)


async def test_stages_come_live_until_the_document_is_ready(mill: Mill, person: Person) -> None:
    await upload(person, ("a.txt", b"A mill."))
    [made] = (await mill.http.get("/v1/documents")).json()["data"]
    seen = ""
    async with (
        asyncio.timeout(60),
        person.http.stream("GET", f"{PATH}/{made['id']}/live") as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            seen += line
            if "state-ready-document" in line:
                break
    assert "<html" not in seen
    async with asyncio.timeout(60), person.http.stream("GET", f"{PATH}/live") as stream:
        async for line in stream.aiter_lines():
            if "a.txt" in line:
                break


async def test_names_texts_and_queries_are_shown_and_never_obeyed(
    mill: Mill, person: Person
) -> None:
    await upload(person, (HOSTILE, b"<img src=x onerror=alert(2)> mills & wheels"))
    made = (await mill.http.get("/v1/documents")).json()["data"][0]
    await ended(mill, made["name"])
    pages = [
        await person.get(PATH),
        await person.get(f"{PATH}/{made['id']}"),
        await person.get("/console/search?collection=mills&query=<b>wheel</b>"),
        await person.get("/console/search?collection=mills&query=wheels&compare=yes"),
    ]
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert '"onload=x' not in page
    assert "alert(1)" in words(pages[0])
    assert "<mark>wheels</mark>" in pages[2]
    assert "&lt;img src=x" in pages[2]


async def test_odd_addresses_have_a_page_that_says_why(person: Person) -> None:
    for path, status, said in (
        (f"{PATH}?state=asleep", 400, "state must be one of"),
        (f"{PATH}?after=nothing", 404, "not_found"),
        (f"{PATH}?collection=%00", 400, "NUL"),
        (f"{PATH}?sent=-1&known=many", 200, "There are no documents yet."),
        (f"{PATH}/nothing", 404, "not_found"),
        (f"{PATH}/nothing/live", 404, "not_found"),
        (f"{SEARCH}?query=a&collection=nothing", 404, "collection_not_found"),
        (f"{SEARCH}?query=a&top=0", 400, "top must be"),
        (f"{SEARCH}?query=a&top=many", 400, "top must be"),
        (f"{SEARCH}?query=a&strategy=magic", 400, "strategy"),
        (f"{SEARCH}?query=a&collection=No+good!", 400, "collection"),
        (f"{SEARCH}?query={'a' * 10_001}", 400, "query"),
        (f"{SEARCH}?query=a%00b&collection=nothing", 400, "NUL"),
    ):
        page = await person.get(path, status=status)
        assert said in words(page), path
        assert "</html>" in page


async def test_long_lists_have_pages_and_filters(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("master.console.documents._SHOWN", 3)
    await upload(person, *[(f"{number}.txt", b"text %d" % number) for number in range(5)])
    first = await person.get(f"{PATH}?collection=mills")
    [following] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await person.get(following.replace("&amp;", "&"))
    names = [re.findall(r">(\d+\.txt)</a>", page) for page in (first, second)]
    assert [len(each) for each in names] == [3, 2]
    assert {f"{number}.txt" for number in range(5)} == {*names[0], *names[1]}
    assert "hx-sse:connect" not in second
    [found] = re.findall(r">(\d+\.txt)</a>", await person.get(f"{PATH}?match=3.txt"))
    assert found == "3.txt"


async def test_other_tenants_see_nothing(mill: Mill, person: Person) -> None:
    await upload(person, ("secret.txt", b"A secret mill."))
    [made] = (await mill.http.get("/v1/documents")).json()["data"]
    other = await make_key(mill.database_url, "others", "tests")
    async with signed_in(mill.url, other) as stranger:
        assert "secret.txt" not in await stranger.get(PATH)
        await stranger.get(f"{PATH}/{made['id']}", status=404)
        await stranger.get(f"{PATH}?after={made['id']}", status=404)
        await stranger.post(f"{PATH}/{made['id']}/delete", status=404)
        await stranger.post(f"{PATH}/{made['id']}/retry", status=404)
        await stranger.get("/console/search?query=secret&collection=mills", status=404)
        async with stranger.http.stream("GET", f"{PATH}/{made['id']}/live") as stream:
            lines = stream.aiter_lines()
            async with asyncio.timeout(60):
                assert await anext(lines) == "event: gone"
