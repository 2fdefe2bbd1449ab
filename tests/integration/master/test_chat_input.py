"""Part C of the bad inputs, on a running master: a clear refusal, nothing stored, life goes on."""

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from db import tenants
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests import servers
from tests.integration.master.mill import Mill, a_script, installation

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = {"role": "user", "content": "Hello"}
JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mill(shared_url: str) -> AsyncGenerator[Mill, None]:
    """One installation for the whole table: whatever a row does, the next one needs it alive."""
    async with installation(
        shared_url, a_script(text="fine", entry={"context_length": 1000, "max_output_tokens": 200})
    ) as made:
        yield made


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "mill", "messages": [HELLO]} | fields).encode()


def says(content: str) -> bytes:
    """A body with this raw JSON as its content."""
    return b'{"model":"mill","messages":[{"role":"user","content":%s}]}' % content.encode()


def image(url: str) -> bytes:
    part = {"type": "image_url", "image_url": {"url": url}}
    return body(messages=[{"role": "user", "content": [part]}])


def png(width: int, height: int) -> str:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height)
    return "data:image/png;base64," + base64.b64encode(header + b"\x08\x02\0\0\0").decode()


@dataclass
class Bad:
    """One row: what is sent, and the refusal that must come."""

    row: str
    content: bytes
    status: int
    code: str
    param: str | None = None
    words: str = ""
    headers: dict[str, str] = field(default_factory=dict)


DEEP = "[" * 900 + "]" * 900
URL = "messages[0].content[0].image_url.url"
TABLE = [
    Bad("C1", b"{", 400, "invalid_json", words="line 1, column 2"),
    Bad("C2 empty", b"", 400, "invalid_json", words="must be a JSON object"),
    Bad("C2 null", b"null", 400, "invalid_json", words="must be a JSON object"),
    Bad("C2 list", b"[]", 400, "invalid_json", words="must be a JSON object"),
    Bad("C3", b'{"model":"\xff"}', 400, "invalid_encoding", words="byte 10"),
    Bad("C4 utf-16", body().decode().encode("utf-16"), 400, "invalid_encoding"),
    Bad("C4 utf-16-le", body().decode().encode("utf-16-le"), 400, "invalid_encoding"),
    Bad("C4 bom", b"\xef\xbb\xbf" + body(), 400, "invalid_encoding"),
    *(
        Bad(
            f"C5 {number}",
            body(temperature=0.125).replace(b"0.125", number.encode()),
            400,
            "number_not_finite",
            "temperature",
            "temperature must be a finite number",
        )
        for number in ("NaN", "Infinity", "-Infinity", "1e400")
    ),
    Bad("C6 content", says('"\\ud800"'), 400, "invalid_unicode", "messages[0].content"),
    Bad("C6 model", body(model="\ud800"), 400, "invalid_unicode", "model"),
    Bad("C6 key", b'{"\\udfff":1}', 400, "invalid_unicode"),
    Bad("C7", says('"a\\u0000b"'), 400, "invalid_unicode", "messages[0].content", "NUL"),
    Bad("C7 key", b'{"\\u0000":1}', 400, "invalid_unicode"),
    Bad("C8", body(seed=1).replace(b"1", b"9" * 5000), 400, "number_too_large", "seed"),
    Bad("C9", b'{"a":' * 100_000, 400, "too_deep", words="32"),
    Bad("C9 list", b"[" * 100_000, 400, "too_deep", words="32"),
    Bad("C10", says(DEEP), 400, "too_deep", words="32"),
    Bad("C11", b'{"model":"mill","model":"x"}', 400, "duplicate_key", words="'model'"),
    Bad("C12", body(messages=[]), 400, "invalid_value", "messages", "must not be empty"),
    Bad("C12 none", b'{"model":"mill"}', 400, "missing_required_parameter", "messages"),
    Bad("C12 null", body(messages=None), 400, "invalid_type", "messages", "must be an array"),
    Bad("C12 null message", body(messages=[None]), 400, "invalid_type", "messages[0]"),
    Bad("no model", b'{"messages":[]}', 400, "missing_required_parameter", "model"),
    Bad("C13", body(messages=[HELLO | {"role": "root"}]), 400, "invalid_value",
        "messages[0].role", "'user'"),
    Bad("C14", body(stream="yes"), 400, "invalid_type", "stream", "true or false"),
    Bad("C15", body(max_tokens=True), 400, "invalid_type", "max_tokens", "integer"),
    Bad("C16 -1", body(max_tokens=-1), 400, "invalid_value", "max_tokens", "at least 1"),
    Bad("C16 0", body(max_tokens=0), 400, "invalid_value", "max_tokens", "at least 1"),
    Bad("C16 1e30", body(max_tokens=1e30), 400, "invalid_type", "max_tokens", "integer"),
    Bad("C17 n", body(n=100), 400, "invalid_value", "n", "must be 1"),
    Bad("C17 messages", body(messages=[HELLO] * 10_000), 400, "invalid_value", "messages", "2048"),
    Bad("C17 5 MB", body(messages=[HELLO | {"content": "x" * 5_000_000}]), 413,
        "request_too_large", "messages", "2000000"),
    Bad("C18", body(model="water"), 404, "model_not_found", "model", "mill, millrace/auto"),
    Bad("C18 spaces", body(model="mi ll"), 404, "model_not_found", "model"),
    Bad("C18 path", body(model="../../etc/passwd"), 404, "model_not_found", "model"),
    Bad("C18 strategy", body(model="millrace/nothing"), 404, "model_not_found", "model"),
    Bad("C18 prefix only", body(model="millrace/"), 404, "model_not_found", "model"),
    Bad("C19", body(model="modèle"), 404, "model_not_found", "model"),
    Bad("C19 long", body(model="m" * 1000), 404, "model_not_found", "model"),
    Bad("C19 longer", body(model="m" * 2000), 400, "invalid_value", "model", "1024"),
    Bad("C20", body(), 415, "unsupported_media_type", headers={"Content-Type": "text/plain"}),
    Bad("C20 none", body(), 415, "unsupported_media_type", headers={"Content-Type": ""}),
    Bad("C21", b"\x1f\x8b", 415, "unsupported_media_type",
        headers=JSON | {"Content-Encoding": "gzip"}),
    Bad("C22", b'{"a":"' + b"x" * 9_000_000 + b'"}', 413, "request_too_large", words="8388608"),
    Bad("many values", b"[" + b"1," * 200_000 + b"1]", 400, "too_many_values", words="100000"),
    *(
        Bad(f"C23 {url}", image(url), 400, "invalid_value", URL, "remote images not allowed")
        for url in (
            "https://example.org/a.png",
            "file:///etc/passwd",
            "http://169.254.169.254/latest",
            "gopher://x",
            "//x/y.png",
        )
    ),
    Bad("C24 base64", image("data:image/png;base64,***"), 400, "invalid_value", URL, "base64"),
    Bad("C24 1x1", image(png(1, 1)), 400, "invalid_value", URL, "1x1"),
    Bad("C24 huge", image(png(40_000, 40_000)), 400, "invalid_value", URL, "40000x40000"),
    Bad("C25", body(messages=[HELLO | {"content": "word " * 1000}]), 400,
        "context_length_exceeded", "messages", "1000 tokens"),
    Bad("C25 answer", body(max_tokens=996), 400, "context_length_exceeded", "messages", "996"),
    Bad("C26 strict", body(temprature=1), 400, "unknown_parameter", "temprature",
        headers=JSON | {"X-Millrace-Strict": "1"}),
]  # fmt: skip


async def lives(mill: Mill) -> None:
    answer = await mill.ask("Are you there?")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "fine"


@pytest.mark.parametrize("bad", TABLE, ids=[bad.row for bad in TABLE])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_bad_body_is_refused_clearly_and_leaves_nothing(
    mill: Mill, bad: Bad, stream: bool
) -> None:
    if stream:
        if not bad.content.endswith(b"}") or b'"stream"' in bad.content:
            pytest.skip("there is no place for a flag")
        bad.content = bad.content[:-1] + b',"stream":true}'
    stored = await mill.count("requests")
    answer = await mill.http.post(
        "/v1/chat/completions", content=bad.content, headers=bad.headers or JSON
    )
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (bad.code, bad.param)
    assert bad.words in error["message"]
    assert len(error["message"]) < 3000
    assert await mill.count("requests") == stored
    assert len(mill.running.streams) == 0
    await lives(mill)


async def test_a_parameter_that_is_not_known_is_named_in_a_warning(mill: Mill) -> None:
    answer = await mill.ask(temprature=1, **{"x\r\nset-cookie: a": 1, "\u202e": 2})
    assert answer.status_code == 200
    warning = answer.headers["x-millrace-warning"]
    assert warning.isascii()
    assert "temprature" in warning
    assert "set-cookie" not in answer.headers


KEYS = {
    "none": None,
    "empty": "",
    "not bearer": "Basic bXI6eA==",
    "no word": "Bearer",
    "spaces": "Bearer    ",
    "unknown": "Bearer mr-AAAAAAAABBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB",
    "sql": "Bearer ' OR 1=1 --",
    "very long": "Bearer " + "x" * 10_000,
    "nul": "Bearer mr-\t\x01",
}
UNKNOWN = "6f1c2a52-0d7e-4c1b-9a53-2f6f0c9b7e11"
"""Fixed, because the test processes must agree on the names of the tests."""

PROTECTED = [
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", f"/v1/requests/{UNKNOWN}"),
    ("DELETE", f"/v1/requests/{UNKNOWN}"),
    ("GET", "/v1/requests/x"),
    ("GET", "/v1/workers"),
    ("GET", "/v1/queues"),
]


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_without_a_valid_key_there_is_one_answer(
    mill: Mill, kind: str, method: str, path: str
) -> None:
    stored = await mill.count("requests")
    headers = {"Content-Type": "application/json"}
    given = KEYS[kind]
    async with httpx2.AsyncClient(base_url=mill.url, trust_env=False) as http:
        if given is not None:
            headers["Authorization"] = given
        try:
            answer = await http.request(method, path, content=body(), headers=headers)
        except httpx2.LocalProtocolError:
            pytest.skip("the client refuses to send this")
    if kind == "nul" and answer.status_code == 400:
        return  # the server's parser does not let it through
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert error["code"] == "invalid_api_key"
    assert "missing or not valid" in error["message"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert await mill.count("requests") == stored


async def test_a_revoked_key_is_refused_at_once(mill: Mill) -> None:
    key = await make_key(mill.database_url, "acme", "to be revoked")
    headers = {"Authorization": f"Bearer {key}"}
    assert (await mill.http.get("/v1/models", headers=headers)).status_code == 200
    async with mill.running.engine.begin() as connection:
        assert await tenants.revoke_key(connection, key[:11])
    answer = await mill.http.get("/v1/models", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


STRANGE_IDS = [
    "x",
    "0",
    "../models",
    "%00",
    "%ff",
    "'",
    "a" * 5000,
    UNKNOWN,
    "{" + UNKNOWN + "}",
    f"urn:uuid:{UNKNOWN}",
    "00000000-0000-0000-0000-000000000000",
]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("identity", STRANGE_IDS)
async def test_an_id_that_is_none_is_a_404(mill: Mill, method: str, identity: str) -> None:
    if identity == "../models":
        identity = "..%2Fmodels"
    answer = await mill.http.request(method, f"/v1/requests/{identity}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_the_request_of_another_tenant_is_a_404_and_is_not_cancelled(mill: Mill) -> None:
    other = await make_key(mill.database_url, "umbrella", "spy")
    headers = {"Authorization": f"Bearer {other}"}
    own = (await mill.ask()).headers["x-millrace-request-id"]
    for method in ("GET", "DELETE"):
        answer = await mill.http.request(method, f"/v1/requests/{own}", headers=headers)
        unknown = await mill.http.request(method, f"/v1/requests/{UNKNOWN}", headers=headers)
        assert answer.status_code == 404
        assert answer.json() == unknown.json()
    assert (await mill.record(own))["state"] == "completed"


async def test_the_running_request_of_another_tenant_cannot_be_cancelled(mill: Mill) -> None:
    other = await make_key(mill.database_url, "umbrella", "spy 2")
    headers = {"Authorization": f"Bearer {other}"}

    async def interfere(got: Any) -> None:
        answer = await mill.http.delete(f"/v1/requests/{got.request}", headers=headers)
        assert answer.status_code == 404

    got = await mill.streamed(seen=interfere)
    assert got.ends_once()
    assert got.text == "fine"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/health", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/models", 405),
        ("TRACE", "/v1/models", 405),
        ("POST", "/v1/requests/x", 405),
        ("GET", "/", 404),
        ("GET", "/v1/", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/completions", 404),
        ("GET", "/.env", 404),
    ],
)
async def test_other_methods_and_paths_are_refused_in_the_envelope(
    mill: Mill, method: str, path: str, status: int
) -> None:
    answer = await mill.http.request(method, mill.url + path)
    assert answer.status_code == status
    if method != "HEAD":
        assert answer.json()["error"]["code"] in {"not_found", "method_not_allowed"}
    await lives(mill)


HEADERS = {
    "x-openwebui-user-id": ["é".encode("latin-1") * 10, b"x" * 10_000, b"'; DROP TABLE x", b"%00"],
    "x-millrace-task": [b"x" * 10_000, b"\xff\xfe", b"title_generation", b"../"],
    "x-request-id": [b"x" * 10_000, b"a b", b"\xf0\x9f\x98\x80"],
    "x-millrace-strict": [b"\xff", b"true"],
    "accept": [b"text/html", b"\xff"],
    "expect": [b"100-continue"],
    "cookie": [b"x" * 60_000],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in HEADERS.items() for v in vs])
async def test_a_strange_header_harms_nobody(mill: Mill, name: str, value: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (name.encode(), value)]
    answer = await mill.http.post("/v1/chat/completions", content=body(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "fine"


async def sent(mill: Mill, raw: bytes) -> bytes:
    """What the server answers to these bytes until it closes, or has been silent for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mill.port)
    writer.write(raw)
    got = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        # It may take its time for the first word; after that it only has to close, if it does.
        while piece := await asyncio.wait_for(reader.read(65536), 2 if got else 30):
            got += piece
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return got


async def test_a_huge_header_ends_its_own_connection_only(mill: Mill) -> None:
    raw = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"x" * 2_000_000 + b"\r\n\r\n"
    got = await sent(mill, raw)
    assert got[:12] in {b"", b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 200"}
    await lives(mill)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_garbage_after_a_request_ends_its_own_connection_only(
    mill: Mill, garbage: bytes
) -> None:
    got = await sent(mill, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + garbage)
    # What came in one piece may be refused as one, before the first of it is answered.
    assert got[:12] in {b"HTTP/1.1 200", b"HTTP/1.1 400"}
    assert b"Traceback" not in got
    await lives(mill)


async def test_garbage_behind_a_streaming_request_does_not_confuse_the_stream(mill: Mill) -> None:
    content = body(stream=True)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {mill.key}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    got = await sent(mill, head.encode() + content + b"\x00garbage\r\n\r\n")
    assert got.count(b"HTTP/1.1 200") <= 1
    assert got.count(b"[DONE]") <= 1

    async def nothing_open() -> bool:
        return len(mill.running.streams) == 0

    await until(nothing_open, 30)
    await mill.idle()
    await lives(mill)


async def test_a_prompt_at_the_edge_of_the_context_is_accepted_and_one_word_more_is_not(
    mill: Mill,
) -> None:
    fits = "x" * (4 * (1000 - 4))
    assert (await mill.ask(fits)).status_code == 200
    answer = await mill.ask(fits + "x")
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_an_outage_of_the_database_is_a_503_everywhere(mill: Mill, postgres_url: str) -> None:
    name = servers.database_name(mill.database_url)
    stored = await mill.count("requests")

    async def allow(how: str) -> None:
        servers._execute(postgres_url, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {how}')

    await allow("false")
    try:
        servers._execute(
            postgres_url,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        for method, path in PROTECTED:
            answer = await mill.http.request(
                method, path, content=body(), headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 503, (path, answer.text)
            assert answer.json()["error"]["code"] == "service_unavailable"
            assert answer.headers["x-should-retry"] == "true"
            assert "retry-after" in answer.headers
        assert (await mill.http.get("/health")).status_code == 200
        assert (await mill.http.get("/ready")).status_code == 503
    finally:
        await allow("true")

    async def ready() -> bool:
        return (await mill.http.get("/ready")).status_code == 200

    await until(ready, 30)

    async def answers() -> bool:
        return (await mill.ask()).status_code == 200

    await until(answers, 30)
    assert await mill.count("requests") > stored
