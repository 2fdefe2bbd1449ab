"""Who looks: from a cookie to a tenant, and whether a post came from a page of ours."""

import hmac
import time
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from starlette.requests import Request

from db.tenants import StoredKey
from master.api.state import ring
from master.console import signing
from master.console.fields import fields

COOKIE = "millrace_console"
CSRF_HEADER = "x-csrf-token"


class SignIn(Exception):
    """Nobody is signed in, or not any more."""


class Forged(Exception):
    """A post that no page of this session made; the message says how that shows."""


@dataclass(frozen=True)
class Viewer:
    """A person with an API key of a tenant."""

    tenant: UUID
    prefix: str
    """The public part of the key."""
    name: str
    """Of the tenant."""
    csrf: str
    key: StoredKey


async def viewer(request: Request) -> Viewer:
    """Who looks. Raises SignIn."""
    session = signing.read(request.cookies.get(COOKIE, ""))
    if session is None:
        raise SignIn
    key = await ring(request).find(session.prefix, time.monotonic())
    if key is None or key.revoked_at is not None:
        raise SignIn
    if not signing.is_genuine(session, key.digest, time.time()):
        raise SignIn
    token = signing.csrf(session, key.digest)
    return Viewer(key.tenant, key.prefix, key.tenant_name, token, key)


async def posted(request: Request) -> Viewer:
    """Who posts, from a page of ours. Raises SignIn or Forged, and `ApiError` for a bad form.

    Where the token comes in the header, the body is not read.
    """
    seen = await viewer(request)
    check_origin(request)
    token = request.headers.get(CSRF_HEADER)
    if token is None:
        token = (await fields(request)).get("csrf", "")
    check_token(seen, token)
    return seen


def check_token(seen: Viewer, token: str) -> None:
    """Whether a form is of this session. Raises Forged."""
    if not hmac.compare_digest(token.encode(), seen.csrf.encode()):
        raise Forged("the form is not of this session; load the page again and repeat it")


def check_origin(request: Request) -> None:
    """Browsers say where a post comes from. Raises Forged unless that is here."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    hosts = {request.headers.get("host"), request.headers.get("x-forwarded-host")}
    if site != "same-origin" or (origin is not None and _host(origin) not in hosts):
        raise Forged("it was sent from another site")


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
