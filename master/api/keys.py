"""API keys: made once, shown once, stored as a digest.

A key reads `mr-` + prefix + secret, all of it letters and digits so that a double click selects
it. The prefix is public and finds the row; only the digest of the whole key is stored.
"""

import hashlib
import hmac
import secrets
import string
from typing import NamedTuple

from master.api import errors

_MARK = "mr-"
_PREFIX_LENGTH = 11  # with the mark: 8 characters of 62, about 2e14 prefixes
_SECRET_LENGTH = 32  # of 62 characters: 190 bits
_ALPHABET = string.ascii_letters + string.digits
_LONGEST = 512  # nobody hashes megabytes for a stranger

_NOBODY = hashlib.sha256(secrets.token_bytes(32)).digest()


class NewKey(NamedTuple):
    """A key that was just made. `plain` is shown to its owner and then forgotten."""

    plain: str
    prefix: str
    digest: bytes


def new_key() -> NewKey:
    """A random key."""
    length = _PREFIX_LENGTH - len(_MARK) + _SECRET_LENGTH
    plain = _MARK + "".join(secrets.choice(_ALPHABET) for _ in range(length))
    return NewKey(plain, prefix_of(plain), digest_of(plain))


def is_well_formed(plain: str) -> bool:
    """Whether it could be a key that `new_key` made."""
    rest = plain.removeprefix(_MARK)
    length = _PREFIX_LENGTH - len(_MARK) + _SECRET_LENGTH
    return plain.startswith(_MARK) and len(rest) == length and set(rest) <= set(_ALPHABET)


def prefix_of(plain: str) -> str:
    """The public part, for the look-up. Defined for every string, also for ones we never made."""
    return plain[:_PREFIX_LENGTH]


def digest_of(plain: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(plain.encode()).digest()


def matches(plain: str, digest: bytes | None) -> bool:
    """Whether a key has this digest. None (no such prefix) takes the same time to be refused."""
    same = hmac.compare_digest(digest_of(plain), digest if digest is not None else _NOBODY)
    return same and digest is not None


def bearer(authorization: str | None) -> str:
    """The key in an `Authorization` header.

    Raises 401 only where there is nothing to look up. What does not look like a key is returned
    and looked up like any other, so that malformed and unknown keys cannot be told apart.
    """
    scheme, _, plain = (authorization or "").partition(" ")
    plain = plain.strip()
    printable = plain.isascii() and plain.isprintable()
    if scheme.lower() != "bearer" or not plain or len(plain) > _LONGEST or not printable:
        raise errors.invalid_api_key()
    return plain
