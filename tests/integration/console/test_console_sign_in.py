"""Who gets into the console, and what every answer of it carries."""

import re
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import structlog
from pydantic import SecretStr

from db import tenants
from master.api.keys import digest_of
from master.app import create_app
from master.console import signing
from master.console.snapshot import Snapshots
from master.console.viewer import COOKIE
from master.metrics.exposition import registry
from master.settings import MasterSettings
from millrace.one_machine import make_key
from tests.integration.console.browsing import Person, client, signed_in, words
from tests.integration.master.mill import Mill, a_script, installation

ELSEWHERE = "https://elsewhere.example"
MANY = "ffffffff-ffff-ffff-ffff-ffffffffffff"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mill(shared_url: str) -> AsyncGenerator[Mill]:
    async with installation(shared_url, a_script()) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(mill: Mill) -> AsyncGenerator[httpx2.AsyncClient]:
    async with client(mill.url) as http:
        yield http


async def test_a_stranger_signs_in_and_comes_to_where_they_wanted(
    mill: Mill, stranger: httpx2.AsyncClient
) -> None:
    asked = await stranger.get("/console/dead?settled=1")
    assert asked.status_code == 303
    form = await stranger.get(asked.headers["location"])
    assert 'name="next" value="/console/dead?settled=1"' in form.text
    given = {"key": f" {mill.key}\n", "next": "/console/dead?settled=1"}
    answer = await stranger.post("/console/login", data=given)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/dead?settled=1")
    cookie = answer.headers["set-cookie"]
    assert re.search(r"; HttpOnly; Max-Age=\d+; Path=/console; SameSite=strict$", cookie)
    assert mill.key not in cookie
    assert "acme" in (await stranger.get("/console/dead?settled=1")).text
    again = await stranger.get("/console/login?next=/console/usage")
    assert (again.status_code, again.headers["location"]) == (303, "/console/usage")


async def test_nobody_is_sent_elsewhere(mill: Mill, stranger: httpx2.AsyncClient) -> None:
    for target in (ELSEWHERE, "//elsewhere.example", "/v1/models", "\\\\a"):
        form = await stranger.get("/console/login", params={"next": target})
        assert 'name="next" value="/console"' in form.text
        given = {"key": mill.key, "next": target}
        answer = await stranger.post("/console/login", data=given)
        assert answer.headers["location"] == "/console"
        stranger.cookies.clear()


async def test_what_is_no_key_is_refused_in_words(mill: Mill, stranger: httpx2.AsyncClient) -> None:
    for key, said in (
        ("", "Give an API key; it begins with mr-."),
        ("mr-nothing", "This API key is not valid, or it was revoked."),
        (mill.key[:-1], "This API key is not valid, or it was revoked."),
        ("ä" * 600, "This API key is not valid, or it was revoked."),
    ):
        answer = await stranger.post("/console/login", data={"key": key})
        assert answer.status_code == 401
        assert said in words(answer.text)
        assert "set-cookie" not in answer.headers
    for body in (b"key=%FF", b"key=%00", b"&".join([b"a=b"] * 300)):
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = await stranger.post("/console/login", content=body, headers=form)
        assert answer.status_code == 400
    answer = await stranger.post("/console/login", json={"key": mill.key})
    assert answer.status_code == 415
    # Strangers send no files: nobody would bound how many of them are written to the disk.
    answer = await stranger.post("/console/login", files={"key": (None, mill.key)})
    assert answer.status_code == 415
    refused = {"origin": ELSEWHERE}
    answer = await stranger.post("/console/login", data={"key": mill.key}, headers=refused)
    assert answer.status_code == 403
    encrypted = {"x-forwarded-proto": "https"}
    answer = await stranger.post("/console/login", data={"key": mill.key}, headers=encrypted)
    assert answer.headers["set-cookie"].endswith("; Secure")


def counted(outcome: str) -> float:
    return registry.get_sample_value("millrace_console_sign_ins_total", {"outcome": outcome}) or 0


async def test_sign_ins_are_logged_and_counted_without_what_was_typed(
    mill: Mill, stranger: httpx2.AsyncClient
) -> None:
    old = await make_key(mill.database_url, "acme", "old")
    async with mill.running.engine.begin() as connection:
        assert await tenants.revoke_key(connection, old[:11])
    wrong = mill.key[:11] + "x" * 32
    before = counted("signed_in"), counted("refused")
    with structlog.testing.capture_logs() as logged:
        for key in (mill.key, old, wrong, "hunter2 is my password", ""):
            await stranger.post("/console/login", data={"key": key})
    said = [line for line in logged if line["event"].startswith("console.sign")]
    assert [(line["event"], line["key"]) for line in said] == [
        ("console.signed_in", mill.key[:11]),
        ("console.sign_in_refused", old[:11]),
        ("console.sign_in_refused", mill.key[:11]),
        ("console.sign_in_refused", None),
        ("console.sign_in_refused", None),
    ]
    for secret in (mill.key[11:], old[11:], "x" * 32, "hunter2"):
        assert secret not in str(logged)
    assert (counted("signed_in"), counted("refused")) == (before[0] + 1, before[1] + 4)


async def test_who_is_not_signed_in_is_asked_whatever_asks(stranger: httpx2.AsyncClient) -> None:
    htmx = {"hx-request": "true", "hx-current-url": "http://a/console/usage?days=30"}
    answer = await stranger.get("/console/live/overview", headers=htmx)
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/console/login?next=/console/usage%3Fdays%3D30"
    referer = {"referer": "http://a/console/usage"}
    posted = await stranger.post("/console/usage/keys", data={"name": "a"}, headers=referer)
    assert posted.headers["location"] == "/console/login?next=/console/usage"
    # The cookie does not come with a link from elsewhere; the page asks for itself once more.
    linked = await stranger.get("/console/dead?model=a", headers={"sec-fetch-site": "cross-site"})
    assert linked.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/console/dead?model=a">' in linked.text


async def test_only_a_cookie_that_was_signed_here_is_taken(
    mill: Mill, person: Person, stranger: httpx2.AsyncClient
) -> None:
    genuine = signing.read(person.http.cookies[COOKIE])
    assert genuine is not None
    theirs = await make_key(mill.database_url, "umbrella", "theirs")
    forged = [
        replace(genuine, expires=genuine.expires + 1),
        replace(genuine, nonce="A" * 22),
        replace(genuine, prefix=theirs[:11]),
        replace(genuine, prefix="mr-nobody00"),
        signing.begin(genuine.prefix, digest_of("guessed"), time.time()),
        signing.begin(genuine.prefix, digest_of(mill.key), time.time() - signing.SESSION_SECONDS),
    ]
    for cookie in (*(session.cookie for session in forged), "", "nonsense", "x" * 5000):
        answer = await stranger.get("/console", headers={"cookie": f"{COOKIE}={cookie}"})
        assert answer.status_code == 303, cookie


async def test_a_forged_post_changes_nothing(mill: Mill, person: Person) -> None:
    async with signed_in(mill.url, mill.key) as other:
        another_session = {"csrf": other.token}
    genuine = {"csrf": person.token}
    before = await mill.count("api_keys")
    for fields, headers in (
        ({}, {}),
        ({"csrf": ""}, {}),
        ({"csrf": "A" * 43}, {}),
        (another_session, {}),
        (genuine, {"x-csrf-token": "wrong"}),
        (genuine, {"origin": ELSEWHERE}),
        (genuine, {"origin": "null"}),
        (genuine, {"origin": "http://["}),
        (genuine, {"sec-fetch-site": "cross-site"}),
        (genuine, {"sec-fetch-site": "same-site"}),
    ):
        form = {"name": "a", **fields}
        answer = await person.http.post("/console/usage/keys", data=form, headers=headers)
        assert answer.status_code == 403, (fields, headers)
        assert "forged" in words(answer.text)
    assert await mill.count("api_keys") == before


async def test_a_genuine_post_passes_with_its_token_in_the_form_or_in_the_header(
    mill: Mill, person: Person
) -> None:
    here = {"origin": mill.url, "sec-fetch-site": "same-origin"}
    form = {"name": "a", "csrf": person.token}
    assert (
        await person.http.post("/console/usage/keys", data=form, headers=here)
    ).status_code == 201
    here["x-csrf-token"] = person.token
    answer = await person.http.post("/console/usage/keys", data={"name": "b"}, headers=here)
    assert answer.status_code == 201


async def test_signing_out_takes_the_token_and_ends_it(person: Person) -> None:
    assert (await person.http.post("/console/logout")).status_code == 403
    answer = await person.post("/console/logout")
    assert answer.headers["location"] == "/console/login"
    assert COOKIE not in person.http.cookies
    assert (await person.http.get("/console")).status_code == 303


async def test_a_session_dies_with_its_key(mill: Mill) -> None:
    key = await make_key(mill.database_url, "acme", "short-lived")
    async with signed_in(mill.url, key) as person:
        await person.get("/console")
        async with mill.running.engine.begin() as connection:
            assert await tenants.revoke_key(connection, key[:11])
        assert (await person.http.get("/console")).status_code == 303


async def test_every_answer_carries_the_headers_and_errors_are_pages(
    person: Person, stranger: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        (303, await stranger.get("/console")),
        (200, await stranger.get("/console/login")),
        (401, await stranger.post("/console/login", data={"key": "a"})),
        (200, await stranger.get("/console/static/console.js")),
        (404, await stranger.get("/console/static/nothing.js")),
        (303, await stranger.get("/console/static/..%2Frouter.py")),
        (405, await stranger.put("/console/login")),
        (200, await person.http.get("/console")),
        (404, await person.http.get("/console/nothing")),
        (404, await person.http.get("/console/dead/nothing")),
        (403, await person.http.post("/console/logout")),
    ]

    async def broken(self: Snapshots, tenant: object) -> Any:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(Snapshots, "of", broken)
    with structlog.testing.capture_logs() as logged:
        answers.append((500, await person.http.get("/console")))
    assert "console.crashed" in [line["event"] for line in logged]
    for status, answer in answers:
        assert answer.status_code == status, answer.url
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "x-request-id" in answer.headers
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert answer.headers["cache-control"] == "no-store"
        if status >= 400:
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert "Traceback" not in answer.text
            assert "secret" not in answer.text
    part = await person.http.get("/console/nothing", headers={"hx-request": "true"})
    assert part.text.startswith('<p class="notice bad" role="alert">')


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/dead?model=%00", 400),
        ("/console/search?query=%00", 400),
        ("/console/playground?model=%00", 400),
        (f"/console/feedback?before=0001-01-01T00:00:00%2B23:59~{MANY}", 400),
        (f"/console/feedback?before=9999-12-31T23:59:59-23:59~{MANY}", 400),
        (f"/console/feedback?before=2026-01-01T00:00:00~{MANY}", 400),
        (f"/console/feedback?before=2026-01-01T00:00:00%2B23:59~{MANY}", 200),
        ("/console/", 308),
    ],
)
async def test_addresses_that_nobody_means_are_no_crash(
    person: Person, path: str, status: int
) -> None:
    await person.get(path, status)


async def test_posts_that_no_page_makes_are_no_crash(person: Person) -> None:
    token = {"x-csrf-token": person.token}
    answer = await person.http.post("/console/usage/keys/%00/revoke", headers=token)
    assert answer.status_code == 404
    answer = await person.http.post("/console/documents", headers=token)
    assert answer.status_code == 415


async def test_static_files_are_for_good_and_compressed(stranger: httpx2.AsyncClient) -> None:
    page = (await stranger.get("/console/login")).text
    for address in re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page):
        answer = await stranger.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip"
        old = await stranger.get(address.split("?")[0] + "?v=old", headers={"accept-encoding": ""})
        assert old.headers["cache-control"] == "no-cache"
        assert old.content == answer.content


async def test_the_api_is_as_it_was(mill: Mill) -> None:
    answer = await mill.http.get("/v1/nothing")
    assert answer.headers["content-type"] == "application/json"
    assert "content-security-policy" not in answer.headers
    paths = (await mill.http.get("/openapi.json")).json()["paths"]
    assert not [path for path in paths if path.startswith("/console")]


async def test_sessions_hold_at_every_replica_and_the_console_can_be_left_out(
    mill: Mill, person: Person
) -> None:
    settings = {"DATABASE_URL": SecretStr(mill.database_url)}
    for console, status in ((True, 200), (False, 404)):
        replica = replace(mill.running, settings=MasterSettings(**settings, console=console))
        transport = httpx2.ASGITransport(create_app(replica))
        async with httpx2.AsyncClient(transport=transport, base_url=mill.url) as http:
            http.cookies = person.http.cookies
            answer = await http.get("/console/workers")
            assert answer.status_code == status
            reference = await http.get("/docs", headers={"cookie": ""})
            assert reference.status_code == 200
            assert "<script" not in reference.text
            assert "/v1/chat/completions" in reference.text
            made = await http.post("/console/usage/keys", data={"name": "a", "csrf": person.token})
            assert made.status_code == (201 if console else 404)
    assert answer.json()["error"]["code"] == "not_found"
