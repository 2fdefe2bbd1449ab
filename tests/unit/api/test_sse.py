import json

from master.api import errors, sse


def payload(frame: bytes) -> object:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    return json.loads(frame[6:])


def test_a_frame_is_one_line_whatever_the_text() -> None:
    text = "a\nb\r\nc\u2028d\x00 data: x"
    assert payload(sse.frame({"text": text})) == {"text": text}


def test_a_frame_can_have_a_name_and_an_id() -> None:
    frame = sse.frame({"n": 1}, event="response.created", id="7")
    assert frame == b'event: response.created\nid: 7\ndata: {"n":1}\n\n'


def test_a_line_break_cannot_forge_a_field() -> None:
    assert sse.comment("x\ndata: evil\r\n\r\n").count(b"\n") == 2
    assert b"\nid: 9\n" not in sse.frame(1, event="a\nid: 9")


def test_an_error_frame_has_an_error_and_no_choices() -> None:
    said = sse.failure(errors.service_unavailable("the broker is down"))
    body = payload(said.removesuffix(sse.DONE))
    assert said.endswith(b"\n\ndata: [DONE]\n\n")
    assert isinstance(body, dict)
    assert set(body) == {"error"}
    assert body["error"]["message"] == "the broker is down"
    assert set(body["error"]) == {"message", "type", "param", "code"}


def test_comments_are_not_data() -> None:
    assert sse.comment("queued") == b": queued\n\n"
    assert sse.PING.startswith(b":")


def test_a_status_line_as_open_webui_reads_it() -> None:
    assert payload(sse.status("Subtask 1/3 finished", done=False)) == {
        "event": {
            "type": "status",
            "data": {"description": "Subtask 1/3 finished", "done": False},
        }
    }


def test_a_source_as_open_webui_reads_it() -> None:
    frame = sse.source("doc.pdf", ["one", "two"], identity="id-1", url="u", distances=[0.9, 0.8])
    assert payload(frame) == {
        "event": {
            "type": "source",
            "data": {
                "source": {"name": "doc.pdf", "url": "u"},
                "document": ["one", "two"],
                "metadata": [{"source": "id-1", "name": "doc.pdf"}] * 2,
                "distances": [0.9, 0.8],
            },
        }
    }
