"""Whatever is sent, the answer is a valid request or an `ApiError`; nothing else is ever raised."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from master.api.bodies import ChatBody, parse_chat
from master.api.errors import ApiError
from master.api.strict_json import JsonLimits, parse_object

NAMES = [
    "model", "messages", "stream", "stream_options", "temperature", "top_p", "n", "max_tokens",
    "stop", "logit_bias", "tools", "tool_choice", "response_format", "metadata", "user", "seed",
    "role", "content", "type", "text", "image_url", "url", "tool_calls", "tool_call_id", "name",
    "function", "arguments", "json_schema", "schema", "id", "", "<text>", "{words}", "__class__",
]  # fmt: skip
WORDS = [
    "user", "assistant", "tool", "system", "text", "image_url", "function", "auto", "json_schema",
    "data:image/png;base64,iVBORw0KGgo=", "data:image/jpeg;base64,/9j/4AAQ", "https://x/y.png",
    "\ud800", "\0", "{param}", "%s",
]  # fmt: skip

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(st.characters(exclude_categories=()), max_size=12)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=25,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "root"]), "content": values},
    optional={"tool_calls": values, "tool_call_id": values, "name": values},
)
requests = st.fixed_dictionaries(
    {"model": st.just("m") | leaves, "messages": st.lists(messages, max_size=3) | values},
    optional=dict.fromkeys(NAMES[2:16], values),
)
steadily = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def outcome(body: bytes) -> ChatBody | ApiError:
    """As the route does it."""
    try:
        return parse_chat(parse_object(body, JsonLimits()))
    except ApiError as error:
        return error


def check(body: bytes) -> None:
    """Whatever comes out must survive JSON, UTF-8 and Postgres."""
    out = outcome(body)
    event(type(out).__name__)
    if isinstance(out, ApiError):
        assert 400 <= out.status < 500
        assert out.message
        shown: object = out.envelope()
    else:
        assert out.model
        assert out.messages
        shown = [out.messages, out.parameters, out.metadata, out.user, out.warnings]
    text = json.dumps(shown, ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    assert "\\u0000" not in text.replace("\\\\", "")


@steadily
@given(st.binary(max_size=300))
def test_any_bytes(body: bytes) -> None:
    check(body)


@steadily
@given(values)
def test_any_json(value: object) -> None:
    check(json.dumps(value).encode())


@steadily
@given(requests)
def test_anything_that_looks_like_a_request(body: dict[str, Any]) -> None:
    check(json.dumps(body).encode())
    with suppress(ApiError):  # also when it does not come through the strict reader
        parse_chat(body)


@steadily
@given(requests, st.data())
def test_a_request_with_bytes_changed_on_the_way(body: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    check(bytes(raw))
