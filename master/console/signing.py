"""What is signed for a browser: the session in its cookie, and the token in its forms.

The keys of the signatures are derived from the digest that the database stores of an API key. So
every replica can check them, and they die with the API key. Pure.
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass

SESSION_SECONDS = 12 * 3600
_FORM = re.compile(r"([A-Za-z0-9-]{1,32})\.(\d{1,12})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Session:
    """What a cookie says; nothing of it is true before `is_genuine` says so."""

    prefix: str
    """Of the API key that was given."""
    expires: int
    """Unix seconds."""
    nonce: str
    signature: str

    @property
    def cookie(self) -> str:
        """The cookie's value."""
        return f"{self.prefix}.{self.expires}.{self.nonce}.{self.signature}"


def begin(prefix: str, digest: bytes, now: float) -> Session:
    """A new session of the API key with this prefix and digest."""
    expires, nonce = int(now) + SESSION_SECONDS, secrets.token_urlsafe(16)
    return Session(prefix, expires, nonce, _signature(digest, prefix, expires, nonce))


def read(cookie: str) -> Session | None:
    """What a cookie claims; None if no cookie of ours reads so."""
    found = _FORM.fullmatch(cookie) if cookie.isascii() else None
    return Session(found[1], int(found[2]), found[3], found[4]) if found else None


def is_genuine(session: Session, digest: bytes, now: float) -> bool:
    """Whether it was signed with this key's digest and has not expired."""
    signature = _signature(digest, session.prefix, session.expires, session.nonce)
    return hmac.compare_digest(signature, session.signature) and now < session.expires


def csrf(session: Session, digest: bytes) -> str:
    """The token that every form of this session carries."""
    return _mac(digest, b"csrf", session.nonce.encode())


def _signature(digest: bytes, prefix: str, expires: int, nonce: str) -> str:
    return _mac(digest, b"session", f"{prefix}.{expires}.{nonce}".encode())


def _mac(digest: bytes, purpose: bytes, message: bytes) -> str:
    key = hmac.digest(digest, b"millrace console " + purpose, hashlib.sha256)
    return urlsafe_b64encode(hmac.digest(key, message, hashlib.sha256)).rstrip(b"=").decode()
