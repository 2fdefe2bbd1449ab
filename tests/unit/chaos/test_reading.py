"""What the lines of a stream add to a client's record."""

import json
from typing import Any

from millrace.chaos.reading import Responses, take_chat, take_event
from millrace.chaos.visits import Errand, StreamSeen, Visit


def visit() -> Visit:
    return Visit(Errand.STREAM, "Why?", 0.0)


def line(said: Any) -> str:
    return "data: " + (said if isinstance(said, str) else json.dumps(said))


def chunk(text: str | None = None, finish: str | None = None) -> str:
    delta = {} if text is None else {"content": text}
    return line({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def event(kind: str, number: int, **fields: Any) -> str:
    return line({"type": kind, "sequence_number": number, **fields})


def test_a_chat_ends_with_its_finish() -> None:
    seen, stream = visit(), StreamSeen("url", done=0)
    for said in (": ping", chunk("a"), chunk(" b"), chunk(finish="stop"), line("[DONE]"), ""):
        take_chat(seen, stream, said)
    assert (seen.text, seen.state) == ("a b", "completed")
    assert (stream.terminals, stream.done) == (["stop"], 1)


def test_an_error_ends_a_chat_and_its_request() -> None:
    seen, stream = visit(), StreamSeen("url", done=0)
    take_chat(seen, stream, line({"error": {"code": "engine_busy"}}))
    assert (seen.state, seen.code, stream.terminals) == ("failed", "engine_busy", ["engine_busy"])


def test_a_draining_master_ends_the_stream_and_not_the_request() -> None:
    seen, stream = visit(), StreamSeen("url", done=0)
    take_chat(seen, stream, line({"error": {"code": "server_draining"}}))
    assert (seen.state, stream.terminals) == (None, ["server_draining"])
    take_event(seen, stream, line({"error": {"code": "server_draining"}}))
    assert seen.state is None


def test_text_after_the_terminal_event_is_noted() -> None:
    seen, stream = visit(), StreamSeen("url", done=0)
    for said in (chunk("a"), chunk(finish="stop"), chunk("b")):
        take_chat(seen, stream, said)
    assert seen.odd == ["text after the terminal event"]


def test_the_end_of_a_request_ends_its_events() -> None:
    seen, stream = visit(), StreamSeen("url")
    take_event(seen, stream, line({"text": "a"}))
    take_event(seen, stream, line({"description": "Part 2 begins", "done": False}))
    take_event(seen, stream, line({"state": "failed", "error": {"code": "worker_lost"}}))
    assert (seen.text, seen.state, seen.code) == ("a", "failed", "worker_lost")
    assert stream.terminals == ["failed"]


def test_a_response_goes_on_over_two_streams() -> None:
    seen, events = visit(), Responses()
    one, other = StreamSeen("url"), StreamSeen("url")
    events.take(seen, one, event("response.output_text.delta", 1, delta="a"))
    events.take(seen, other, event("response.output_text.delta", 3, delta=" b"))
    ended = {"status": "completed", "error": None}
    events.take(seen, other, event("response.completed", 4, response=ended))
    assert (seen.text, seen.state, seen.odd) == ("a b", "completed", [])
    assert (one.terminals, other.terminals) == ([], ["completed"])


def test_an_event_that_comes_twice_is_noted() -> None:
    seen, events, stream = visit(), Responses(), StreamSeen("url")
    for _ in range(2):
        events.take(seen, stream, event("response.output_text.delta", 1, delta="a"))
    assert seen.odd == ["event 1 came after 1"]
