"""Forms, names, settings and questions of a stranger: refused by name, or harmless (C43)."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from master.api import uploads
from tests.scenarios.house import MOST_BYTES, SPARSE, House, a_house, code

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(postgres_url: str, migrated_template: str) -> AsyncGenerator[House]:
    """One for all: whatever a test does, the next one needs it alive."""
    async with a_house(postgres_url, migrated_template) as made:
        await made.still_works()
        yield made


@pytest.mark.parametrize(
    "query",
    [
        "foo & |",
        "!",
        "((",
        "a:*b",
        "<->",
        "'; DROP TABLE x",
        "\\",
        '"',
        "%",
        "the of",
        "🙂",
        "_ " * 4000,
    ],
    ids=range(12),
)
async def test_no_question_is_a_syntax(house: House, query: str) -> None:
    await house.found(query)


async def raw(house: House, head: str, body: bytes = b"", *, leave: bool = False) -> bytes:
    """What the master says to bytes on a socket; b"" to who leaves before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.mill.port)
    key = f"Authorization: Bearer {house.mill.key}\r\n"
    lines = f"POST /v1/documents HTTP/1.1\r\nHost: mill\r\n{key}{head}\r\n\r\n"
    writer.write(lines.encode() + body)
    await writer.drain()
    try:
        return b"" if leave else await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        await writer.wait_closed()


FORM = "Content-Type: multipart/form-data; boundary=x"
OPEN = (
    b'--x\r\nContent-Disposition: form-data; name="collection"\r\n\r\nnever\r\n'
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhalf a fi'
)


async def test_bodies_whose_length_is_a_lie_store_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await house.mill.count("documents")
    said = await raw(house, f"{FORM}\r\nContent-Length: 99999999999")
    assert said.startswith(b"HTTP/1.1 413")
    said = await raw(house, f"{FORM}\r\nContent-Length: {len(OPEN)}\r\nConnection: close", OPEN)
    assert said.startswith(b"HTTP/1.1 400")
    assert b"invalid_form" in said
    chunk = b"%x\r\n%b\r\n" % (len(OPEN) + MOST_BYTES * 2, OPEN + b"x" * MOST_BYTES * 2)
    said = await raw(house, f"{FORM}\r\nTransfer-Encoding: chunked", chunk)
    assert said.startswith(b"HTTP/1.1 413")
    await raw(house, f"{FORM}\r\nContent-Length: 5000", OPEN, leave=True)
    monkeypatch.setattr(uploads, "_SECONDS", 0.3)
    said = await raw(house, f"{FORM}\r\nContent-Length: 5000", OPEN)
    assert said.startswith(b"HTTP/1.1 408")
    assert await house.mill.count("documents") == before
    monkeypatch.undo()
    await house.still_works()


async def test_a_form_in_an_odd_alphabet_is_refused(house: House) -> None:
    for charset in ("unicode_escape", "utf-7", "utf-16", "idna", "punycode", "rot13", "nothing"):
        head = f"{FORM}; charset={charset}\r\nContent-Length: {len(OPEN) + 9}\r\nConnection: close"
        said = await raw(house, head, OPEN + b"\r\n--x--\r\n")
        assert said.startswith(b"HTTP/1.1 415"), charset


async def test_more_files_than_allowed_are_refused_together(house: House) -> None:
    many = [(f"{n}.txt", b"text %d" % n) for n in range(101)]
    assert code(await house.send(*many, collection="never")) == (400, "invalid_form")
    two = [(f"{n}.txt", b"%d" % n * MOST_BYTES) for n in range(3)]
    assert code(await house.send(*two, collection="never")) == (413, "request_too_large")
    assert code(await house.mill.http.get("/v1/collections/never")) == (404, "not_found")


def named(name: bytes) -> bytes:
    body = secrets.token_hex(8).encode()
    return (
        b'--x\r\nContent-Disposition: form-data; name="collection"\r\n\r\nnames\r\n'
        b'--x\r\nContent-Disposition: form-data; name="strategy"\r\n\r\nsparse\r\n'
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b\r\n--x--\r\n'
        % (name, body)
    )


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"../../../etc/passwd", "etc/passwd"),
        (b"a/../b/./c.txt", "a/b/c.txt"),
        (b"C:/../x.txt", "x.txt"),
        (b"/etc//passwd", "etc/passwd"),
        (b"../..", None),
        (rb"..\\..\\win.ini", "win.ini"),
        (b"a\0b.txt", "ab.txt"),
        ("🙂.txt".encode(), "🙂.txt"),
        ("a\u2028b\u202egnp.txt".encode(), "a bgnp.txt"),
        (b"%0d%0aX: y.txt", "%0d%0aX: y.txt"),
        (b"\xff.txt", "ÿ.txt"),
        (b"", None),
        (b"/", None),
        (b"x" * 600, None),
        (b"x" * 10_000, None),
    ],
    ids=range(15),
)
async def test_names_of_files_are_kept_plain_or_refused(
    house: House, name: bytes, kept: str | None
) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await house.mill.http.post("/v1/documents", content=named(name), headers=headers)
    if kept is None:
        assert answer.status_code == 400, answer.text
        return
    done = await house.end_of(answer)
    assert (done["state"], done["name"]) == ("ready", kept)


async def test_names_that_are_given_as_json_are_plain_too(house: House) -> None:
    said = await house.say(text="one", name="a\r\n\n[2] b\u202e.txt", collection="names", **SPARSE)
    assert (await house.end_of(said))["name"] == "a   [2] b.txt"
    for name in (" ", "\n", "\u202e"):
        answer = await house.say(text="two", name=name, collection="names", **SPARSE)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


@pytest.mark.parametrize(
    "metadata",
    [
        "[1]",
        "null",
        "{",
        '{"a":NaN}',
        '{"a":1e999}',
        '{"a":"\\ud800"}',
        '{"a":"\\u0000"}',
        '{"a":1,"a":2}',
        '{"a":%s}' % ("9" * 5000),
        '{"a":' * 5000,
        '{"a":' * 33 + "1" + "}" * 33,
        '{"a":"%s"}' % ("x" * 17_000),
        '{"a":"%s"}' % ("x" * 1_000_000),
    ],
    ids=range(13),
)
async def test_metadata_that_cannot_be_kept_is_refused(house: House, metadata: str) -> None:
    answer = await house.send(("a.txt", b"text"), collection="never", metadata=metadata)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert code(await house.mill.http.get("/v1/collections/never")) == (404, "not_found")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "a b",
        ".",
        "..",
        ".a",
        "-a",
        "_a",
        "a/b",
        "a" * 65,
        "ä",
        "a\n",
        "a\0",
        "🙂",
        "' OR 1",
    ],
    ids=range(15),
)
async def test_a_name_that_no_search_could_use_makes_no_collection(house: House, name: str) -> None:
    http = house.mill.http
    body = {"collection": name, "text": "text", **SPARSE}
    for answer in (
        await http.post("/v1/collections", json={"name": name, **SPARSE}),
        await http.post("/v1/documents", json=body),
        await http.post("/v1/search", json={"collection": name, "query": "x"}),
        await house.mill.ask(retrieval={"collection": name}),
    ):
        assert answer.status_code == 400, answer.text
    assert name not in [each["name"] for each in (await http.get("/v1/collections")).json()["data"]]


async def test_a_misspelt_filter_of_a_list_is_not_ignored(house: House) -> None:
    answer = await house.mill.http.get("/v1/documents", params={"colection": "papers"})
    assert code(answer) == (400, "unknown_parameter")
