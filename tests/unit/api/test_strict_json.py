"""Rows 1-11 of the bad inputs: what a body may be before anyone looks at its meaning."""

import json
import re

import pytest

from master.api.errors import ApiError
from master.api.strict_json import JsonLimits, parse_object


def refused(body: bytes, limits: JsonLimits | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_object(body, limits or JsonLimits())
    return caught.value


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", "invalid_json", r"not valid JSON: .* \(line 1, column 2\)"),
        (b'{"a": 1,\n "b" 2}', "invalid_json", r"\(line 2, column 6\)"),
        (b'{"a":1}{', "invalid_json", "Extra data"),
        (b"{'a':1}", "invalid_json", "double quotes"),
        (b'{"a":01}', "invalid_json", "not valid JSON"),
        (b'{"a":"x\ny"}', "invalid_json", "control character"),
        (b'{"a":"\0"}', "invalid_json", "control character"),
        (b'{"a":"\\ud8"}', "invalid_json", "escape"),
        (b"", "invalid_json", "must be a JSON object, but it is empty"),
        (b" \n ", "invalid_json", "must be a JSON object, but it is empty"),
        (b"null", "invalid_json", "must be a JSON object"),
        (b"[]", "invalid_json", "must be a JSON object"),
        (b'"\\ud800"', "invalid_json", "must be a JSON object"),
        (b"17", "invalid_json", "must be a JSON object"),
        (b'{"a":"\xff"}', "invalid_encoding", "byte 6 "),
        (b'{"a":"\xed\xa0\x80"}', "invalid_encoding", "byte 6 "),  # a surrogate in UTF-8
        (b'{"a":"\xc0\x80"}', "invalid_encoding", "byte 6 "),  # NUL in two bytes
        ('{"a":1}'.encode("utf-8-sig"), "invalid_encoding", "byte order mark"),
        ('{"a":1}'.encode("utf-16"), "invalid_encoding", "byte"),
        ('{"a":1}'.encode("utf-16-le"), "invalid_encoding", "UTF-8"),
        ('{"a":1}'.encode("utf-16-be"), "invalid_encoding", "UTF-8"),
        ('{"a":1}'.encode("utf-32"), "invalid_encoding", "byte"),
        (b'{"model":"a","b":1,"model":"c"}', "duplicate_key", "duplicate key 'model'"),
        (b'{"a":[{"b":1,"b":1}]}', "duplicate_key", "duplicate key 'b'"),
        (b'{"a":1,"\\u0061":2}', "duplicate_key", "duplicate key 'a'"),
    ],
)
def test_a_body_that_is_not_one_json_object_is_refused(
    body: bytes, code: str, message: str
) -> None:
    error = refused(body)
    assert (error.status, error.code) == (400, code)
    assert re.search(message, error.message), error.message


@pytest.mark.parametrize(
    ("body", "code", "param", "message"),
    [
        (b'{"temperature":NaN}', "number_not_finite", "temperature", "must be a finite number"),
        (b'{"temperature":-Infinity}', "number_not_finite", "temperature", "finite"),
        (b'{"temperature":1e400}', "number_not_finite", "temperature", "finite"),
        (b'{"a":{"b":[0,{"c":NaN}]}}', "number_not_finite", "a.b[1].c", "finite"),
        (b'{"seed":' + b"9" * 5000 + b"}", "number_too_large", "seed", "number too large"),
        (b'{"seed":-' + b"9" * 5000 + b"}", "number_too_large", "seed", "number too large"),
        (b'{"seed":9223372036854775808}', "number_too_large", "seed", "number too large"),
        (b'{"a":["x","\\ud800"]}', "invalid_unicode", "a[1]", "invalid unicode"),
        (b'{"a":"\\udc00\\ud800"}', "invalid_unicode", "a", "invalid unicode"),
        (b'{"a":"\\\\ud83d\\ude00"}', "invalid_unicode", "a", "invalid unicode"),
        (b'{"b":{"\\udfff":1}}', "invalid_unicode", "b", "invalid unicode"),
        (b'{"\\udfff":1}', "invalid_unicode", None, "invalid unicode"),
        (b'{"m":[{"content":"a\\u0000b"}]}', "invalid_unicode", "m[0].content", "NUL"),
        (b'{"a\\u0000":1}', "invalid_unicode", None, "NUL"),
    ],
)
def test_a_value_that_would_break_something_later_is_refused_by_its_path(
    body: bytes, code: str, param: str | None, message: str
) -> None:
    error = refused(body)
    assert (error.status, error.code, error.param) == (400, code, param)
    assert message in error.message
    error.message.encode("ascii")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"\\ud83d\\ude00"}',  # a pair
        b'{"a":"\\\\ud800"}',  # a backslash and letters
        b'{"a":"\\\\u0000"}',
        b'{"a":9223372036854775807,"b":-9223372036854775807,"c":1e300,"d":-0.0}',
        b'\r\n\t {"a":{"a":{"a":[]}}} \n',
        '{"a":"Größe 😀 \u2028"}'.encode(),
        b'{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}',
        nested(32),
    ],
)
def test_a_sound_body_is_read_as_the_standard_parser_reads_it(body: bytes) -> None:
    assert parse_object(body) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        nested(33),
        b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 100_000 + b"NaN" + b"]" * 100_000 + b"}",
        b'{"n":NaN,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_nesting_deeper_than_32_is_refused(body: bytes) -> None:
    error = refused(body)
    assert (error.status, error.code) == (400, "too_deep")
    assert "deeper than 32" in error.message


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b"1," * 4_000_000 + b"1]}",
        b'{"a":[' + b"{}," * 2_600_000 + b"{}]}",
        b'{"a":' + b'"' * 7_000_000 + b"," * 1_000_000,
    ],
)
def test_millions_of_tiny_values_are_refused_before_they_are_parsed(body: bytes) -> None:
    assert refused(body).code == "too_many_values"


@pytest.mark.timeout(120)
def test_a_long_text_full_of_commas_or_quotes_is_not_taken_for_values() -> None:
    for text in ("1," * 500_000, '",' * 500_000, "\\" * 500_000 + ",," * 100_000):
        assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}


def test_the_message_shows_no_more_than_a_piece_of_a_hostile_key() -> None:
    key = "k\r\n" * 100_000
    body = json.dumps({"x": {key: [1]}}).encode().replace(b"[1]", b"[NaN]")
    error = refused(body)
    assert len(error.message) < 500
    assert "\n" not in error.message
