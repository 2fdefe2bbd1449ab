"""Reading a JSON body that a stranger wrote.

The standard parser is lenient where it hurts later: it takes NaN, lets the last of two equal keys
win, and hands out lone surrogates and NUL characters that Postgres and UTF-8 refuse. Here each of
these is a 400 that names the place, and reading is bounded in bytes, seconds and depth.
"""

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue
from starlette.requests import Request

from master.api import errors

_LARGEST_INTEGER = 2**63 - 1  # what a bigint, and every client's JSON parser, can hold
_MOST_DIGITS = 20


@dataclass(frozen=True)
class JsonLimits:
    """How much of a body is read before it is refused."""

    max_bytes: int = 8 * 1024 * 1024
    seconds: float = 30.0
    max_depth: int = 32
    max_values: int = 100_000


DEFAULT_LIMITS = JsonLimits()


async def read_json(request: Request, limits: JsonLimits = DEFAULT_LIMITS) -> dict[str, JsonValue]:
    """The body of a request as a JSON object. Raises `ApiError` 400, 408, 413 or 415."""
    _check_headers(request)
    return parse_object(await read_body(request, limits), limits)


async def read_body(request: Request, limits: JsonLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a body, however long the client says it is."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_bytes:
        raise errors.request_too_large(limits.max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.max_bytes:
                    raise errors.request_too_large(limits.max_bytes)
    except TimeoutError:
        raise errors.request_timeout(limits.seconds) from None
    return bytes(body)


def parse_object(body: bytes, limits: JsonLimits = DEFAULT_LIMITS) -> dict[str, JsonValue]:
    """Parse strictly. Raises `ApiError` 400."""
    if not body.strip():
        raise errors.invalid_json("the body must be a JSON object, but it is empty")
    text = _text(body)
    _check_size(text, limits.max_values)
    value = _parse(text, limits.max_depth)
    if not isinstance(value, dict):
        raise errors.invalid_json("the body must be a JSON object")
    _check_depth(value, limits.max_depth)
    # NUL and surrogates cannot stand in the text itself, only behind an escape.
    if "\\u" in text and ("\\u0000" in text or not _is_unicode(value)):
        _raise_first_unsafe(value)
    return value


def _check_headers(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != "application/json":
        raise errors.unsupported_media_type("Content-Type must be application/json")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if charset not in {"", "utf-8", "utf8"}:
        raise errors.unsupported_media_type("the charset must be utf-8")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise errors.unsupported_media_type("send the body without Content-Encoding")


def _text(body: bytes) -> str:
    # UTF-16 of ASCII is valid UTF-8 with NUL bytes; say what is wrong with it.
    if body.startswith(b"\xef\xbb\xbf") or b"\0" in body[:4]:
        raise errors.invalid_encoding()
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the body is not valid UTF-8: byte {error.start} is wrong"
        raise errors.invalid_encoding(message) from None


# Possessive and without a required end, so that it is linear on every text.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def _check_size(text: str, max_values: int) -> None:
    # Megabytes of `1,1,1` would hold the event loop for seconds; megabytes of prose do not.
    if text.count(",") > max_values and _STRING.sub("", text).count(",") > max_values:
        message = f"the body has more than {max_values} values"
        raise errors.invalid_value(message, code="too_many_values")


class _UnsafeNumber(Exception):
    """The strict parser met a number that is not finite or too large."""


def _parse(text: str, max_depth: int) -> JsonValue:
    try:
        try:
            value: JsonValue = _STRICT.decode(text)
        except _UnsafeNumber:
            # The parser's hooks do not know where they are: parse again and look for the place.
            _raise_first_unsafe(_LENIENT.decode(text))
            raise errors.invalid_value("a number is out of range") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise errors.invalid_json(f"the body is not valid JSON: {error.msg} ({place})") from None
    except RecursionError:  # the C parser counts its depth, and stops far below the stack's end
        raise _too_deep(max_depth) from None
    return value


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise errors.invalid_value(f"duplicate key '{_plain(twice)}'", code="duplicate_key")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS or abs(number := int(digits)) > _LARGEST_INTEGER:
        raise _UnsafeNumber
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _UnsafeNumber
    return number


def _constant(name: str) -> float:
    raise _UnsafeNumber


_TOO_LARGE = 2**64
_STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
_LENIENT = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else _TOO_LARGE,
)


_WITHOUT_ESCAPES = json.JSONEncoder(ensure_ascii=False, check_circular=False)


def _check_depth(value: JsonValue, max_depth: int) -> None:
    level: list[Any] = [value]
    for _ in range(max_depth):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise _too_deep(max_depth)


def _too_deep(max_depth: int) -> errors.ApiError:
    return errors.invalid_value(f"the body is nested deeper than {max_depth}", code="too_deep")


def _is_unicode(value: JsonValue) -> bool:
    try:
        _WITHOUT_ESCAPES.encode(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _raise_first_unsafe(value: JsonValue) -> None:
    for path, scalar in _scalars(value):
        if reason := _unsafe(scalar):
            code, words = reason
            where = _path(path)
            raise errors.invalid_value(f"{where or 'the body'} {words}", where or None, code)


def _scalars(value: JsonValue) -> Iterator[tuple[list[str | int], JsonValue]]:
    """Every key and every leaf with its path, without recursion and without a copy."""
    if not isinstance(value, (dict, list)):
        yield [], value
    path: list[str | int] = []
    open_nodes = [_members(value)]
    while open_nodes:
        for name, child in open_nodes[-1]:
            if isinstance(name, str):
                yield path, name
            if isinstance(child, (dict, list)):
                path.append(name)
                open_nodes.append(_members(child))
                break
            yield [*path, name], child
        else:
            open_nodes.pop()
            del path[-1:]


def _members(node: JsonValue) -> Iterator[tuple[str | int, JsonValue]]:
    if isinstance(node, dict):
        return iter(node.items())
    return enumerate(node) if isinstance(node, list) else iter(())


def _path(parts: Sequence[str | int]) -> str:
    written = (f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in parts)
    return "".join(written).removeprefix(".")


def _unsafe(scalar: JsonValue) -> tuple[str, str] | None:
    match scalar:
        case str() if "\0" in scalar:
            return "invalid_unicode", "must not contain NUL characters"
        case str() if not scalar.isascii() and any("\ud800" <= c <= "\udfff" for c in scalar):
            return "invalid_unicode", "contains invalid unicode: half of a surrogate pair"
        case float() if not math.isfinite(scalar):
            return "number_not_finite", "must be a finite number"
        case int() if abs(scalar) > _LARGEST_INTEGER:
            return "number_too_large", f"number too large: at most {_LARGEST_INTEGER}"
    return None


def _plain(key: str) -> str:
    """A key as part of an error message."""
    return ascii(key[:64])[1:-1]
