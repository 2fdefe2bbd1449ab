"""Bytes to messages and back, with and without a signature."""

from itertools import pairwise
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_schemas.codec import SIGNATURE_HEADER, KeyRing, UnreadableMessage, decode, encode
from queue_schemas.messages import (
    RESULT,
    STREAM,
    SUBTASK,
    WORKER,
    Channel,
    Completed,
    ErrorKind,
    Failed,
    Heartbeat,
    Message,
    Notice,
    RunningSubtask,
    Started,
    SubtaskRequest,
    TokenChunk,
    Usage,
)

KEY = KeyRing.parse("a secret of the tests")
NOTICE = Notice(request=uuid4())

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(text, json_values, max_size=3)
attempts = st.integers(1, 1000)
seconds = st.floats(0, 1e9)
identity = {"request": st.uuids(), "subtask": st.uuids(), "attempt": attempts}
execution = {**identity, "execution": st.uuids()}
usage = st.builds(Usage, engine_seconds=seconds, first_token_seconds=st.none() | seconds)
outcome = {**execution, "worker": text, "usage": usage, "text": text}

results = st.builds(
    Completed,
    **outcome,
    tool_calls=st.lists(json_objects, max_size=2).map(tuple),
    logprobs=json_values,
    finish_reason=text,
) | st.builds(
    Failed,
    **outcome,
    kind=st.sampled_from(ErrorKind),
    code=text,
    message=text,
    retry_after_seconds=st.none() | seconds,
)
subtasks = st.builds(
    SubtaskRequest,
    **identity,
    tenant=st.uuids(),
    step=text,
    model=text,
    messages=st.lists(json_objects, max_size=2).map(tuple),
    parameters=json_objects,
    shown=text,
    seed=st.integers(0, 2**63),
    timeout_seconds=st.floats(0.001, 1e6),
    reply_to=st.none() | text,
)
streams = st.builds(
    TokenChunk,
    **execution,
    delivery=st.integers(0, 20),
    channel=st.sampled_from(Channel),
    offset=st.integers(0, 10**9),
    text=text,
) | st.builds(Notice, request=st.uuids())
reports = st.builds(Started, **execution, delivery=st.integers(0, 20), worker=text) | st.builds(
    Heartbeat,
    worker=text,
    model=text,
    slots=attempts,
    provider=text,
    host=text,
    pid=st.integers(1, 2**22),
    release=text,
    running=st.lists(
        st.builds(
            RunningSubtask,
            request=st.uuids(),
            subtask=st.uuids(),
            attempt=attempts,
            execution=st.uuids(),
            delivery=st.integers(0, 20),
        ),
        max_size=3,
    ).map(tuple),
)


@given(results)
def test_any_result_survives_the_wire(message: Completed | Failed) -> None:
    assert decode(RESULT, *encode(message)) == message


@given(subtasks)
def test_any_subtask_survives_the_wire(message: SubtaskRequest) -> None:
    assert decode(SUBTASK, *encode(message)) == message


@given(streams)
def test_any_piece_of_a_stream_survives_the_wire(message: TokenChunk | Notice) -> None:
    assert decode(STREAM, *encode(message)) == message


@given(reports)
def test_any_report_of_a_worker_survives_the_wire(message: Started | Heartbeat) -> None:
    assert decode(WORKER, *encode(message)) == message


def test_without_a_key_no_header_is_added() -> None:
    assert encode(NOTICE)[1] == {}


def test_a_signed_message_is_read_with_the_same_key() -> None:
    body, headers = encode(NOTICE, KEY)
    assert decode(STREAM, body, headers, KEY) == NOTICE


def test_a_reader_without_a_key_takes_signed_messages_too() -> None:
    assert decode(STREAM, *encode(NOTICE, KEY)) == NOTICE


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {SIGNATURE_HEADER: ""},
        {SIGNATURE_HEADER: 7},
        {SIGNATURE_HEADER: b"bytes"},
        encode(NOTICE, KeyRing.parse("another long key"))[1],
        {SIGNATURE_HEADER: encode(NOTICE, KEY)[1][SIGNATURE_HEADER].partition(":")[0]},
        encode(Notice(request=uuid4()), KEY)[1],
    ],
    ids=["none", "empty", "number", "bytes", "other key", "only the key's id", "of another body"],
)
def test_a_missing_or_wrong_signature_is_refused(headers: dict[str, object]) -> None:
    body, _ = encode(NOTICE)
    with pytest.raises(UnreadableMessage, match="signature"):
        decode(STREAM, body, headers, KEY)


def test_keys_are_changed_without_a_moment_in_which_a_message_is_refused() -> None:
    old, new = "the old secret", "the new secret"
    steps = [KeyRing.parse(keys) for keys in (old, f"{old}, {new}", f"{new},{old}", new)]
    for before, after in pairwise(steps):
        assert decode(STREAM, *encode(NOTICE, before), after) == NOTICE
        assert decode(STREAM, *encode(NOTICE, after), before) == NOTICE
    with pytest.raises(UnreadableMessage, match="key is not known"):
        decode(STREAM, *encode(NOTICE, steps[0]), steps[-1])


@pytest.mark.parametrize("setting", ["", "short", "long enough as a key,", ",", "a" * 11])
def test_a_key_that_signs_nothing_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="12 characters"):
        KeyRing.parse(setting)


def test_the_key_is_not_part_of_the_header() -> None:
    assert "secret" not in encode(NOTICE, KEY)[1][SIGNATURE_HEADER]


def test_a_changed_body_is_refused() -> None:
    body, headers = encode(NOTICE, KEY)
    with pytest.raises(UnreadableMessage, match="signature"):
        decode(STREAM, body + b" ", headers, KEY)


def test_a_signature_that_is_not_ascii_is_refused_and_does_not_crash() -> None:
    body, _ = encode(NOTICE)
    with pytest.raises(UnreadableMessage, match="signature"):
        decode(STREAM, body, {SIGNATURE_HEADER: "schlüssel"}, KEY)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"type":"unknown"}', b"[" * 100_000],
    ids=["empty", "cut", "null", "list", "string", "not utf-8", "unknown type", "deep"],
)
def test_a_body_that_is_no_message_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableMessage):
        decode(STREAM, body, {})


def test_the_reason_names_the_field() -> None:
    body = encode(NOTICE)[0].replace(str(NOTICE.request).encode(), b"nobody")
    with pytest.raises(UnreadableMessage, match=r"notice\.request"):
        decode(STREAM, body, {})


def test_messages_cannot_be_changed_after_they_were_made() -> None:
    message: Message = NOTICE
    with pytest.raises(ValueError, match="frozen"):
        message.version = 1  # type: ignore[misc]
