"""Content of a URL that a client named: only public addresses, only so much, only so long."""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx2

from master.retrieval.addresses import is_public

_FAILED: Final = "fetch_failed"
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[\w.-]+|[\da-fA-F:.]+", re.ASCII)
_TRIED: Final = 3
_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What may be fetched."""

    size_bytes: int = 50_000_000
    total_seconds: float = 30
    redirects: int = 5
    ports: frozenset[int] = frozenset({80, 443})
    allow_private: bool = False
    """For those who ingest from their intranet: any address and any port."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at the URL; `url` is where the redirects ended."""

    body: bytes
    media_type: str | None
    url: str


class UrlNotAllowed(Exception):
    """This URL is not fetched. It does not say why: that would map the network for a stranger."""

    code = "url_not_allowed"
    status = 400


class FetchFailed(Exception):
    """The URL gave nothing. `transient` when it may do so later."""

    def __init__(
        self, code: str, message: str, *, status: int = 502, transient: bool = False
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.transient = transient


Resolver = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host and port; raises OSError."""


async def fetch(
    url: str,
    limits: FetchLimits | None = None,
    *,
    resolver: Resolver | None = None,
    trusted: ssl.SSLContext | None = None,
) -> Fetched:
    """Fetch once; raises UrlNotAllowed or FetchFailed. `trusted` is for certificates of one's own.

    A name is resolved here, once, and the connection goes to an address that was judged: were
    it resolved again to connect, it could have another address by then.
    """
    limits = limits or FetchLimits()
    try:
        async with asyncio.timeout(limits.total_seconds):
            return await _followed(url, limits, resolver or _resolved, trusted)
    except (TimeoutError, httpx2.TimeoutException) as error:
        said = f"nothing complete within {limits.total_seconds} seconds"
        raise FetchFailed(_FAILED, said, status=504, transient=True) from error
    except httpx2.InvalidURL as error:
        raise UrlNotAllowed from error
    except httpx2.HTTPError as error:
        is_certificate = "certificate" in str(error).lower()
        said = "its certificate is not valid" if is_certificate else "the server does not answer"
        raise FetchFailed(_FAILED, said, transient=not is_certificate) from error


async def _followed(
    url: str, limits: FetchLimits, resolver: Resolver, trusted: ssl.SSLContext | None
) -> Fetched:
    at = httpx2.URL(url)
    for _ in range(limits.redirects + 1):
        found = await _once(at, limits, resolver, trusted)
        if isinstance(found, Fetched):
            return found
        at = found
    raise FetchFailed(_FAILED, f"more than {limits.redirects} redirects")


async def _once(
    url: httpx2.URL, limits: FetchLimits, resolver: Resolver, trusted: ssl.SSLContext | None
) -> Fetched | httpx2.URL:
    """The content, or where it is said to be."""
    addresses = await _allowed(url, limits, resolver)
    transport = httpx2.AsyncHTTPTransport(verify=trusted or True, trust_env=False)
    async with transport:
        response = await _connected(transport, url, addresses[:_TRIED])
        try:
            if response.is_redirect and "location" in response.headers:
                return url.join(response.headers["location"]).copy_with(fragment=None)
            return await _content(response, url, limits)
        finally:
            await response.aclose()


async def _allowed(url: httpx2.URL, limits: FetchLimits, resolver: Resolver) -> list[str]:
    """The addresses to connect to; every one that the name has must be allowed."""
    host = url.raw_host.decode("ascii")
    port = url.port or _PORTS.get(url.scheme, 0)
    is_odd = url.scheme not in _PORTS or not _HOST.fullmatch(host) or url.userinfo
    if is_odd or not (limits.allow_private or port in limits.ports):
        raise UrlNotAllowed
    try:
        addresses = await resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise FetchFailed(_FAILED, "the name is not known", transient=True) from error
    if not addresses:
        raise FetchFailed(_FAILED, "the name has no address", transient=True)
    if not limits.allow_private and not all(is_public(address) for address in addresses):
        raise UrlNotAllowed
    return addresses


async def _resolved(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connected(
    transport: httpx2.AsyncHTTPTransport, url: httpx2.URL, addresses: Sequence[str]
) -> httpx2.Response:
    """The answer of the first address that can be reached."""
    for number, address in enumerate(addresses, 1):
        try:
            return await transport.handle_async_request(_request(url, address))
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if number == len(addresses):
                raise
    raise AssertionError("there is an address")


def _request(url: httpx2.URL, address: str) -> httpx2.Request:
    """To the address, under the name: in the Host header, and in TLS also for the certificate."""
    return httpx2.Request(
        "GET",
        url.copy_with(host=address, fragment=None),
        headers={
            "Host": url.netloc.decode("ascii"),
            "User-Agent": "millrace",
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate",
        },
        extensions={
            "sni_hostname": url.raw_host.decode("ascii"),
            "timeout": httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS).as_dict(),
        },
    )


async def _content(response: httpx2.Response, url: httpx2.URL, limits: FetchLimits) -> Fetched:
    if not response.is_success:
        status = response.status_code
        is_passing = status == 429 or status >= 500
        raise FetchFailed(_FAILED, f"the server answers {status}", transient=is_passing)
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        # Both counts: packed, a little may become very much, and many times nothing stays nothing.
        if max(len(body), response.num_bytes_downloaded) > limits.size_bytes:
            raise FetchFailed("too_large", f"more than {limits.size_bytes} bytes", status=413)
    return Fetched(bytes(body), response.headers.get("content-type"), str(url))
