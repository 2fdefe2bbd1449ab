"""`Idempotency-Key`: the same request twice is one request."""

import hashlib
import json
import re
from collections.abc import Mapping

from pydantic import JsonValue
from starlette.datastructures import Headers

from master.api import errors

IDEMPOTENCY_HEADER = "Idempotency-Key"

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def idempotency_key(headers: Headers, metadata: Mapping[str, str]) -> str | None:
    """The client's own name for its request, if it has one. Raises 400 for an unusable one.

    The SDKs send no such header by themselves, so `metadata.request_id` of the body counts too.
    """
    given = headers.getlist(IDEMPOTENCY_HEADER)
    where = IDEMPOTENCY_HEADER if given else "metadata.request_id"
    if not given and "request_id" in metadata:
        given = [metadata["request_id"]]
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        words = "must be one string of 1 to 255 printable ASCII characters without spaces"
        raise errors.invalid_value(f"{where} {words}", where)
    return given[0]


def body_digest(body: Mapping[str, JsonValue]) -> bytes:
    """Equal for bodies that mean the same, whatever the order of their keys and their spaces."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).digest()
