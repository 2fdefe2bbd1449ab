"""Bytes to messages and back, with an optional signature.

With a key set, every body is signed (HMAC-SHA256) and every unsigned or wrongly signed body is
refused: a stranger who can reach the broker cannot inject a result. The body holds the identity
(request, subtask, attempt, execution), so a signature cannot be moved to another attempt.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from queue_schemas.messages import Message

SIGNATURE_HEADER: Final = "x-millrace-signature"
SHORTEST_KEY: Final = 12
"""Characters; a key that can be guessed signs nothing."""

_T = TypeVar("_T")


class UnreadableMessage(ValueError):
    """A body that is not a message of this contract. It belongs into `quarantine`."""


@dataclass(frozen=True)
class KeyRing:
    """The keys of an installation by their ids. The first signs, all are accepted.

    So keys are changed without a stop: accept the new one everywhere (`old,new`), sign with it
    everywhere (`new,old`), forget the old one (`new`).
    """

    keys: Mapping[str, bytes]

    @classmethod
    def parse(cls, setting: str) -> Self:
        """Keys separated by commas. Raises `ValueError` for one that is empty or too short."""
        keys = [key.strip().encode() for key in setting.split(",")]
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise ValueError(
                f"each key needs {SHORTEST_KEY} characters or more, separated by commas"
            )
        return cls({_id_of(key): key for key in keys})

    def sign(self, body: bytes) -> str:
        """The value of the signature's header: the key's id and the signature."""
        key_id, key = next(iter(self.keys.items()))
        return f"{key_id}:{_signature(body, key)}"

    def verify(self, body: bytes, header: object) -> None:
        """Raises `UnreadableMessage` unless one of the keys signed this body."""
        if not isinstance(header, str):
            raise UnreadableMessage("the signature is missing")
        key_id, _, given = header.partition(":")
        key = self.keys.get(key_id)
        if key is None:
            raise UnreadableMessage("the signature's key is not known here")
        if not hmac.compare_digest(given.encode(), _signature(body, key).encode()):
            raise UnreadableMessage("the signature is wrong")


def encode(message: Message, keys: KeyRing | None = None) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a message."""
    body = message.model_dump_json(exclude_defaults=False).encode()
    return body, ({SIGNATURE_HEADER: keys.sign(body)} if keys else {})


def decode(
    adapter: TypeAdapter[_T],
    body: bytes,
    headers: Mapping[str, object],
    keys: KeyRing | None = None,
) -> _T:
    """Parse a body. Raises `UnreadableMessage` with the reason."""
    if keys:
        keys.verify(body, headers.get(SIGNATURE_HEADER))
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableMessage(f"{where or 'body'}: {first['msg']}") from error


def _signature(body: bytes, key: bytes) -> str:
    return hmac.digest(key, body, hashlib.sha256).hex()


def _id_of(key: bytes) -> str:
    """A name that every process gives the same key without being told, and that betrays nothing."""
    return hmac.digest(key, b"millrace key id", hashlib.sha256).hex()[:8]
