"""The events of a response, cut anywhere and put together again, are one stream."""

import itertools
import json
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from master.api import errors, sse
from master.api.response_events import HEAD, THOUGHTS, Events
from master.api.response_shapes import Subject
from master.ending import Ending
from queue_schemas.states import RequestState

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OTHER = {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "[]"}}


def subject(background: bool) -> Subject:
    return Subject(UUID(int=7), "mill", background, created_at=1, ended_at=2)


def frames_of(raw: bytes) -> list[dict[str, Any]]:
    found = []
    raw = raw.removesuffix(sse.DONE)
    for block in raw.decode().removesuffix("\n\n").split("\n\n") if raw else ():
        name, said = block.split("\n")
        event = json.loads(said.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event, strict=False)
        found.append(event)
    return found


def stream(
    answer: str,
    ending: Ending,
    cuts: list[int],
    *,
    background: bool,
    after: int | None = None,
    single: bool = False,
) -> list[dict[str, Any]]:
    """What one replica sends, with the text in pieces that end at these places."""
    thoughts = ending.reasoning
    events = Events(subject(background), lambda: thoughts, after, single=single)
    raw = events.head()
    for piece in in_pieces(thoughts[events.thought :], cuts):
        raw += b"".join(events.reasoning(piece))
    for piece in in_pieces(answer[events.skip :], cuts):
        raw += b"".join(events.text(piece))
    return frames_of(raw + events.end(ending))


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[begin:end] for begin, end in itertools.pairwise(places)]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")


def thoughts_of(events: list[dict[str, Any]]) -> str:
    return "".join(e["delta"] for e in events if e["type"] == "response.reasoning_text.delta")


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in events]


endings = st.builds(
    lambda state, reason, calls: (state, reason, calls),
    st.sampled_from([RequestState.COMPLETED] * 3 + [RequestState.FAILED, RequestState.CANCELLED]),
    st.sampled_from(["stop", "length"]),
    st.sampled_from([(), (CALL,), (CALL, OTHER)]),
)
positions = st.integers(min_value=0, max_value=80) | st.integers(HEAD - 5, HEAD + 70)
THINKING = "What is a mill? Let me see."
cuts = st.lists(st.integers(min_value=0, max_value=200), max_size=8)


def an_ending(answer: str, how: tuple[RequestState, str, Any], thoughts: str = "") -> Ending:
    state, reason, calls = how
    if state is not RequestState.COMPLETED:
        return Ending(state, error={"code": "engine_broken", "message": "it broke"})
    return Ending(state, answer=answer, finish_reason=reason, tool_calls=calls, reasoning=thoughts)


@settings(max_examples=200, deadline=None)
@given(
    answer=st.text(max_size=80),
    thoughts=st.text(max_size=40),
    how=endings,
    first=cuts,
    second=cuts,
    cut=st.integers(min_value=0, max_value=140),
    background=st.booleans(),
)
def test_a_stream_cut_after_any_event_goes_on_without_gap_or_repeat(
    answer: str,
    thoughts: str,
    how: tuple[RequestState, str, Any],
    first: list[int],
    second: list[int],
    cut: int,
    background: bool,
) -> None:
    ending = an_ending(answer, how, thoughts)
    whole = stream(answer, ending, first, background=background)
    head = whole[: cut % len(whole) + 1]
    cursor = head[-1]["sequence_number"]
    rest = stream(answer, ending, second, background=background, after=cursor)
    assert text_of(whole) == answer
    if head == whole:
        assert [e["type"] for e in rest] == [whole[-1]["type"]]
        return
    joined = head + rest
    assert text_of(joined) == answer
    assert thoughts_of(joined) == ending.reasoning
    assert numbers(joined) == sorted(set(numbers(joined)))
    assert joined[-1] == whole[-1]
    assert without_deltas(joined) == without_deltas(whole)


def without_deltas(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of them but the deltas, which may be cut anywhere."""
    return [e for e in events if not e["type"].endswith(("_text.delta", "error"))]


@settings(max_examples=100, deadline=None)
@given(answer=st.text(max_size=60), places=cuts, number=positions)
def test_a_full_replay_can_be_filtered_by_any_number(
    answer: str, places: list[int], number: int
) -> None:
    ending = an_ending(answer, (RequestState.COMPLETED, "stop", ()), THINKING)
    replay = stream(answer, ending, places, background=True, single=True)
    kept = [event for event in replay if event["sequence_number"] > number]
    assert text_of(kept) == answer[max(0, number - HEAD) :]
    assert thoughts_of(kept) == THINKING[max(0, number - THOUGHTS) :]


def test_an_interruption_repeats_the_last_number() -> None:
    events = Events(subject(background=True), str, HEAD + 5)
    [fresh] = frames_of(events.error(errors.server_draining()))
    assert (fresh["type"], fresh["sequence_number"]) == ("error", HEAD + 5)
    shown = frames_of(b"".join(events.text("abc")))
    [later] = frames_of(events.error(errors.server_draining()))
    assert later["sequence_number"] == shown[-1]["sequence_number"] == HEAD + 8
    assert later["code"] == "server_draining"


def test_an_ended_response_has_one_status_for_each_way_to_end() -> None:
    said = {
        RequestState.FAILED: ("response.failed", "failed"),
        RequestState.EXPIRED: ("response.failed", "failed"),
        RequestState.CANCELLED: ("response.failed", "cancelled"),
    }
    for state, (event, status) in said.items():
        ending = Ending(state, error={"code": "x", "message": "y"})
        [last] = frames_of(Events(subject(background=True), str, 4).end(ending))
        assert (last["type"], last["response"]["status"]) == (event, status)
        assert last["response"]["error"] == {
            "code": "server_error",
            "message": "y",
            "param": None,
            "type": "x",
        }
