import asyncio
import contextlib
import gzip
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from master.retrieval.addresses import is_public
from master.retrieval.fetch import Fetched, FetchFailed, FetchLimits, UrlNotAllowed, fetch

PRIVATE = FetchLimits(allow_private=True, total_seconds=20)
Answer = Callable[[bytes], bytes]


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


class Site:
    """A server on loopback that remembers what it was asked. It may hold the connection."""

    def __init__(self, answer: Answer, *, holds: bool) -> None:
        self.answer = answer
        self.holds = holds
        self.asked: list[bytes] = []
        self.serving: set[asyncio.Task[None] | None] = set()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(asked)
            writer.write(self.answer(asked))
            await writer.drain()
            if self.holds:
                await reader.read()  # until the client leaves
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def site(
    answer: Answer, tls: ssl.SSLContext | None = None, *, holds: bool = False
) -> AsyncGenerator[Site, None]:
    served = Site(answer, holds=holds)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        served.port = server.sockets[0].getsockname()[1]
        yield served
    await asyncio.gather(*filter(None, served.serving))


def names(*answers: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A resolver that gives these answers in turn, and the last for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


LOCAL = names(["127.0.0.1"])


async def refused(url: str, *addresses: str) -> None:
    with pytest.raises(UrlNotAllowed) as caught:
        await fetch(url, resolver=names(list(addresses)))
    assert str(caught.value) == ""


async def failure(url: str, limits: FetchLimits = PRIVATE) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        await fetch(url, limits, resolver=LOCAL)
    return caught.value


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.64.0.1",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "",
        "localhost",
        "127.1",
    ],
)
async def test_addresses_inside_are_refused(address: str) -> None:
    assert not is_public(address)
    await refused("http://example.com/", address)
    await refused("http://example.com/", "93.184.216.34", address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111"])
def test_addresses_of_the_internet_are_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "//example.com/",
        "example.com",
        "",
        "http://",
        "http://user@example.com/",
        "http://user:password@example.com/",
        "http://example.com:22/",
        "http://example.com:5432/",
        "https://example.com:8443/",
        "http://example.com:99999/",
        "http://exa mple.com/",
        "http://exa%0d%0aple.com/",
        "http://[::1/",
        "http://example.com/\x00",
    ],
)
async def test_odd_urls_are_refused_before_anybody_is_asked(url: str) -> None:
    async def never(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host!r} was looked up")

    with pytest.raises(UrlNotAllowed):
        await fetch(url, resolver=never)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/"]
)
async def test_loopback_is_refused_however_it_is_written(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        await fetch(url)


async def test_content_is_fetched_from_the_judged_address_under_its_name() -> None:
    async with site(lambda _: ok(b"hello", "Content-Type: text/plain; charset=utf-8")) as server:
        url = f"http://docs.example:{server.port}/a?b=c#part"
        found = await fetch(url, PRIVATE, resolver=LOCAL)
    assert found == Fetched(b"hello", "text/plain; charset=utf-8", url)
    [asked] = server.asked
    assert asked.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert f"Host: docs.example:{server.port}\r\n".encode() in asked


async def test_a_name_is_resolved_once_so_that_it_cannot_change_its_address() -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["192.0.2.1"]

    async with site(lambda _: ok(b"hello")) as server:
        url = f"http://rebind.example:{server.port}/"
        assert (await fetch(url, PRIVATE, resolver=rebinding)).body == b"hello"
    assert asked == ["rebind.example"]


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with site(lambda _: ok(b"hello")) as server:
        addresses = names(["127.0.0.9", "127.0.0.1"])
        url = f"http://docs.example:{server.port}/"
        assert (await fetch(url, PRIVATE, resolver=addresses)).body == b"hello"


async def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with site(lambda _: ok(b"hello")) as server:
        url = f"http://docs.example:{server.port}/"
        assert (await fetch(url, PRIVATE, resolver=LOCAL)).body == b"hello"


async def test_redirects_are_followed_to_where_they_end() -> None:
    def answer(asked: bytes) -> bytes:
        return redirect("../b") if b"/x/a " in asked else ok(b"end")

    async with site(answer) as server:
        root = f"http://docs.example:{server.port}"
        found = await fetch(f"{root}/x/a", PRIVATE, resolver=LOCAL)
    assert (found.body, found.url) == (b"end", f"{root}/b")


@pytest.mark.parametrize("to", ["file:///etc/passwd", "http://user@docs.example/"])
async def test_redirects_are_judged_like_urls(to: str) -> None:
    async with site(lambda _: redirect(to)) as server:
        url = f"http://docs.example:{server.port}/"
        with pytest.raises(UrlNotAllowed):
            await fetch(url, PRIVATE, resolver=LOCAL)


async def test_the_address_behind_a_redirect_is_judged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("master.retrieval.fetch.is_public", lambda found: found == "127.0.0.1")
    async with site(lambda _: redirect("http://inside.example/")) as server:
        limits = FetchLimits(ports=frozenset({80, server.port}))
        resolver = names(["127.0.0.1"], ["10.0.0.1"])
        with pytest.raises(UrlNotAllowed):
            await fetch(f"http://docs.example:{server.port}/", limits, resolver=resolver)


async def test_redirects_in_a_circle_end() -> None:
    async with site(lambda _: redirect("/again")) as server:
        error = await failure(f"http://docs.example:{server.port}/")
    assert "redirects" in error.message
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("status", "is_transient"), [("404 Not Found", False), ("503 Busy", True), ("429 Slow", True)]
)
async def test_refusals_of_the_server_are_told(status: str, is_transient: bool) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    async with site(lambda _: answer) as server:
        error = await failure(f"http://docs.example:{server.port}/")
    assert error.code == "fetch_failed"
    assert status[:3] in error.message
    assert error.transient is is_transient


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ok(b"x" * 2000), id="plain"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000 + b"\r\n",
            id="of unknown length",
        ),
        pytest.param(ok(gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip"), id="packed"),
    ],
)
async def test_content_that_is_too_large_is_not_read(answer: bytes) -> None:
    limits = FetchLimits(size_bytes=1000, allow_private=True)
    async with site(lambda _: answer) as server:
        error = await failure(f"http://docs.example:{server.port}/", limits)
    assert (error.code, error.status) == ("too_large", 413)


async def test_a_silent_server_is_left() -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"
    limits = FetchLimits(total_seconds=0.3, allow_private=True)
    async with site(lambda _: begun, holds=True) as server:
        error = await failure(f"http://docs.example:{server.port}/", limits)
    assert (error.status, error.transient) == (504, True)


async def test_nobody_there_and_unknown_names_may_be_tried_again() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("name or service not known")

    async with site(lambda _: b"") as server:
        port = server.port
    assert (await failure(f"http://docs.example:{port}/")).transient
    with pytest.raises(FetchFailed, match="not known") as caught:
        await fetch("http://docs.example/", resolver=unknown)
    assert caught.value.transient


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        ok(b"not gzip", "Content-Encoding: gzip"),
    ],
)
async def test_answers_that_are_no_http_are_failures(answer: bytes) -> None:
    async with site(lambda _: answer) as server:
        assert (await failure(f"http://docs.example:{server.port}/")).code == "fetch_failed"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=docs.example"
    alternative = ["-addext", "subjectAltName=DNS:docs.example"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*command.split(), *alternative, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return certificate, key


async def test_tls_is_spoken_with_the_name_and_not_with_the_address(
    certificate: tuple[Path, Path],
) -> None:
    asked: list[str | None] = []
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    tls.sni_callback = lambda _connection, name, _context: asked.append(name)
    trusted = ssl.create_default_context(cafile=certificate[0])
    async with site(lambda _: ok(b"hello"), tls) as server:
        url = f"https://docs.example:{server.port}/"
        found = await fetch(url, PRIVATE, resolver=LOCAL, trusted=trusted)
        assert found.body == b"hello"
        other = f"https://other.example:{server.port}/"
        with pytest.raises(FetchFailed, match="certificate"):
            await fetch(other, PRIVATE, resolver=LOCAL, trusted=trusted)
        with pytest.raises(FetchFailed, match="certificate") as caught:
            await fetch(url, PRIVATE, resolver=LOCAL)
    assert asked == ["docs.example", "other.example", "docs.example"]
    assert not caught.value.transient
