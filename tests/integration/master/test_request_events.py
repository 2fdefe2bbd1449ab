"""One request as plain server-sent events, resumed the way browsers do it (C33)."""

import json
from typing import Any

import pytest

from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

WORDS = " ".join(f"word{n}" for n in range(30))
PACED = a_script(text=WORDS, tokens_per_second=100)
Event = dict[str, str]


def parse(body: str) -> list[Event]:
    """The events of a stream, by field; comments are left out."""
    blocks = [block for block in body.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def text_of(events: list[Event]) -> str:
    return "".join(json.loads(e["data"])["text"] for e in events if e["event"] == "text")


async def events(mill: Mill, request: str, last: str | None = None, **query: Any) -> list[Event]:
    headers = {"Last-Event-ID": last} if last is not None else {}
    answer = await mill.http.get(f"/v1/requests/{request}/events", headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parse(answer.text)


async def background(mill: Mill, model: str = "mill", asked: str = "Why?") -> str:
    body = {"model": model, "input": asked, "background": True}
    answer = await mill.http.post("/v1/responses", json=body)
    request: str = answer.headers["x-millrace-request-id"]
    return request


async def test_a_request_is_followed_to_its_end(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="{step} " + WORDS, tokens_per_second=100))
    request = await background(mill, "millrace/split", "1. What is a mill?\n2. What is a wheel?")
    got = await events(mill, request)
    record = await mill.record(request)
    assert text_of(got) == record["answer"]
    assert json.loads(got[0]["data"]) == {"description": "Split into 2 parts", "done": False}
    assert {event["event"] for event in got} == {"status", "text", "end"}
    assert [event["event"] for event in got].count("end") == 1
    assert json.loads(got[-1]["data"])["state"] == "completed"


async def test_a_browser_goes_on_after_every_event_it_may_have_and_then_stops(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(PACED)
    request = await background(mill)
    got = await events(mill, request)
    have = ""
    for event in got[:-1]:
        have += text_of([event])
        rest = await events(mill, request, event["id"])
        assert have + text_of(rest) == WORDS
        assert rest[-1]["event"] == "end"
        by_number = await events(mill, request, starting_after=len(have))
        assert text_of(by_number) == text_of(rest)
    # A browser connects again after the end; only 204 tells it not to.
    done = await mill.http.get(
        f"/v1/requests/{request}/events", headers={"Last-Event-ID": got[-1]["id"]}
    )
    assert (done.status_code, done.content) == (204, b"")


async def test_an_event_id_of_another_request_or_of_none_is_refused(make_mill: MakeMill) -> None:
    mill = await make_mill(PACED)
    request, other = await background(mill), await background(mill)
    strange = (await events(mill, other))[0]["id"]
    for last in (strange, "7", "-1", f"{other.replace('-', '')}-end", f"{request}-1", "x" * 5000):
        answer = await mill.http.get(
            f"/v1/requests/{request}/events", headers={"Last-Event-ID": last}
        )
        assert answer.status_code == 400, last
        assert answer.json()["error"]["param"] == "Last-Event-ID"


@pytest.mark.parametrize("request_id", ["x", "00000000-0000-4000-8000-000000000000"])
async def test_a_request_that_is_not_there_is_a_404(make_mill: MakeMill, request_id: str) -> None:
    mill = await make_mill(PACED)
    answer = await mill.http.get(f"/v1/requests/{request_id}/events")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_failed_request_ends_with_its_error(make_mill: MakeMill) -> None:
    fault = {"kind": "fail", "error_kind": "permanent", "code": "bad_request", "after_tokens": 2}
    mill = await make_mill(a_script(text=WORDS, faults=[fault]))
    request = await background(mill)
    got = await events(mill, request)
    end = json.loads(got[-1]["data"])
    assert (end["state"], end["error"]["code"]) == ("failed", "bad_request")
