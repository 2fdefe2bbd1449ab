"""Bytes to messages and back, with an optional signature.

With a key set, every body is signed (HMAC-SHA256) and every unsigned or wrongly signed body is
refused: a stranger who can reach the broker cannot inject a result.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from queue_schemas.messages import Message

SIGNATURE_HEADER = "x-millrace-signature"

_T = TypeVar("_T")


class UnreadableMessage(ValueError):
    """A body that is not a message of this contract. It belongs into `quarantine`."""


def encode(message: Message, key: bytes | None = None) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a message."""
    body = message.model_dump_json(exclude_defaults=False).encode()
    return body, ({SIGNATURE_HEADER: _sign(body, key)} if key else {})


def decode(
    adapter: TypeAdapter[_T], body: bytes, headers: Mapping[str, object], key: bytes | None = None
) -> _T:
    """Parse a body. Raises `UnreadableMessage` with the reason."""
    if key:
        given = headers.get(SIGNATURE_HEADER)
        if not isinstance(given, str) or not hmac.compare_digest(
            given.encode(), _sign(body, key).encode()
        ):
            raise UnreadableMessage("the signature is missing or wrong")
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableMessage(f"{where or 'body'}: {first['msg']}") from error


def _sign(body: bytes, key: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()
