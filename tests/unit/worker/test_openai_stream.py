"""Reading chat completion chunks, however the network cuts them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_schemas.messages import Channel
from worker.providers.openai_stream import Answer, Payloads
from worker.providers.protocol import Delta, Finish, ProviderError


def chunk(**choice: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, **choice}]}).encode()


def said(text: str) -> bytes:
    return chunk(delta={"content": text})


def finished(answer: Answer) -> Finish:
    *_, finish = answer.end()
    assert isinstance(finish, Finish)
    return finish


def answer_of(*payloads: bytes) -> Answer:
    answer = Answer("")
    for payload in payloads:
        answer.take(payload)
    return answer


@given(
    texts=st.lists(st.text(), min_size=1),
    newline=st.sampled_from(["\n", "\r\n"]),
    space=st.sampled_from(["", " "]),
    cuts=st.lists(st.integers(min_value=1, max_value=40)),
)
def test_payloads_come_out_whole_wherever_the_bytes_are_cut(
    texts: list[str], newline: str, space: str, cuts: list[int]
) -> None:
    frames = [json.dumps({"t": text}, ensure_ascii=False) for text in texts]
    body = (f": ping{newline}{newline}" + "".join(
        f"event: message{newline}data:{space}{frame}{newline}{newline}" for frame in frames
    )).encode()  # fmt: skip
    payloads = Payloads()
    found: list[bytes] = []
    for size in [*cuts, len(body)]:
        found += payloads.feed(body[:size])
        body = body[size:]

    assert [item.decode() for item in [*found, *payloads.rest()]] == frames


def test_a_last_line_without_an_end_is_read() -> None:
    payloads = Payloads()

    assert [*payloads.feed(b"data: [DONE]"), *payloads.rest()] == [b"[DONE]"]


def test_tool_calls_are_put_together_from_their_pieces() -> None:
    def piece(index: int, call_id: str | None = None, **function: str) -> bytes:
        return chunk(delta={"tool_calls": [{"index": index, "id": call_id, "function": function}]})

    answer = answer_of(
        piece(1, "b", name="time", arguments=""),
        piece(0, "a", name="weather", arguments='{"ci'),
        piece(0, arguments='ty": "Ulm"}'),
        piece(1, arguments="{}"),
        chunk(delta={}, finish_reason="stop"),
    )

    finish = finished(answer)
    assert finish.finish_reason == "tool_calls"
    assert finish.tool_calls == (
        {"id": "a", "type": "function",
         "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}},
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    )  # fmt: skip


def test_a_tool_call_in_the_making_is_a_sign_of_life() -> None:
    answer = Answer("")

    assert answer.take(chunk(delta={"tool_calls": [{"index": 0, "id": "a"}]})) == [Delta("")]


def test_logprobs_add_up() -> None:
    answer = answer_of(
        chunk(delta={"content": "a"}, logprobs={"content": [{"token": "a"}], "refusal": None}),
        chunk(delta={"content": "b"}, logprobs={"content": [{"token": "b"}]}),
        chunk(delta={}, finish_reason="stop"),
    )

    logprobs = finished(answer).logprobs
    assert logprobs == {"content": [{"token": "a"}, {"token": "b"}], "refusal": []}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_both_names_of_reasoning_are_known(name: str) -> None:
    assert Answer("").take(chunk(delta={name: "hm"})) == [Delta("hm", Channel.REASONING)]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"),
     ("eos_token", "stop"), ("function_call", "tool_calls")],
)  # fmt: skip
def test_finish_reasons_are_openais_words(theirs: str, ours: str) -> None:
    assert finished(answer_of(chunk(delta={}, finish_reason=theirs))).finish_reason == ours


def test_counts_are_none_when_the_engine_gives_none() -> None:
    finish = finished(answer_of(said("x"), chunk(delta={}, finish_reason="stop"), b"[DONE]"))

    assert (finish.prompt_tokens, finish.completion_tokens) == (None, None)


@pytest.mark.parametrize(
    "payloads",
    [[], [said("x")], [said("x"), b"[DONE]"], [chunk(delta={}, finish_reason="abort")]],
    ids=["nothing", "text", "done", "abort"],
)
def test_an_answer_without_a_proper_finish_is_cut_off(payloads: list[bytes]) -> None:
    with pytest.raises(ProviderError, match="upstream_truncated"):
        answer_of(*payloads).end()


@pytest.mark.parametrize(
    ("payload", "code", "message"),
    [
        (b'{"error": {"message": "oops", "code": 500}}', "engine_error", "oops"),
        (b'{"error": "oops"}', "engine_error", "oops"),
        (b'{"error": {"message": "no", "code": "x"}}', "engine_error", "no"),
        (b'{"object": "error", "message": "old vLLM", "code": 400}', "bad_request", "old vLLM"),
        (b'{"error": {"message": "request exceeds the context size", "code": 400}}',
         "context_length_exceeded", "request exceeds the context size"),
    ],
)  # fmt: skip
def test_an_error_frame_is_a_failure(payload: bytes, code: str, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        Answer("").take(payload)

    assert (caught.value.code, caught.value.message) == (code, message)


def test_llama_cpps_error_field_is_an_error_frame() -> None:
    (payload,) = Payloads().feed(b'error: {"code": 500, "message": "oops"}\n')

    with pytest.raises(ProviderError, match="oops"):
        Answer("").take(payload)


@pytest.mark.parametrize(
    "payload", [b"<html>", b"[]", b'"text"', b'{"choices": [7]}', b'{"choices": [{"delta": 7}]}']
)
def test_what_is_no_chunk_is_malformed_and_not_a_bug(payload: bytes) -> None:
    with pytest.raises(ProviderError, match="upstream_malformed"):
        Answer("").take(payload)
