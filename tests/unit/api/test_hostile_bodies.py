"""Whatever is sent, the answer is a valid request or an `ApiError`; nothing else is ever raised."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from master.api.bodies import parse_chat
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
    optional={name: values for name in NAMES[2:16]},
)
steadily = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def answer(body: bytes) -> object:
    """As the route does it. Whatever comes out must survive JSON, UTF-8 and Postgres."""
    try:
        parsed = parse_object(body, JsonLimits())
        chat = parse_chat(parsed)
    except ApiError as error:
        assert 400 <= error.status < 500
        assert error.message
        shown: Any = error.envelope()
    else:
        assert chat.model
        assert chat.messages
        shown = [chat.messages, chat.parameters, chat.metadata, chat.user, chat.warnings]
    text = json.dumps(shown, ensure_ascii=False, allow_nan=False)
    assert "\\u0000" not in text.replace("\\\\", "")
    return text.encode("utf-8")


@steadily
@given(st.binary(max_size=300))
def test_any_bytes(body: bytes) -> None:
    answer(body)


@steadily
@given(values)
def test_any_json(value: object) -> None:
    answer(json.dumps(value).encode())


@steadily
@given(requests)
def test_anything_that_looks_like_a_request(body: dict[str, Any]) -> None:
    answer(json.dumps(body).encode())
    try:  # also when it does not come through the strict reader
        parse_chat(body)
    except ApiError:
        pass


@steadily
@given(requests, st.data())
def test_a_request_with_bytes_changed_on_the_way(body: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    answer(bytes(raw))
