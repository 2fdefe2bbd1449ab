"""What the playground's page is told."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.datastructures import QueryParams

from master.api.errors import ApiError
from master.console.playing import Screen, body_of, resumed_at
from master.console.requests import filter_of, wish_of
from master.ending import Ending
from master.live import Grown, Idle, Interrupted, Item, Live, Reasoning, Status, Text
from master.planning.plan import AggregatorName, Plan, Step
from queue_schemas.messages import TokenChunk
from queue_schemas.states import RequestState

ONE, TWO = UUID(int=1), UUID(int=2)


def a_live() -> Live:
    """Two parts, of which the second builds on the first."""
    steps = (
        Step(key="one", title="The first", model="mill", messages=()),
        Step(key="two", model="mill", messages=(), depends_on=("one",)),
    )
    plan = Plan(strategy="split", aggregator=AggregatorName.SECTIONS, steps=steps)
    return Live(uuid4(), plan, {ONE: "one", TWO: "two"})


def chunk(live: Live, text: str, offset: int, execution: int = 7, attempt: int = 1) -> TokenChunk:
    return TokenChunk(
        request=live.request,
        subtask=ONE,
        attempt=attempt,
        execution=UUID(int=execution),
        delivery=0,
        offset=offset,
        text=text,
    )


def told(screen: Screen, item: Item) -> list[tuple[str, Any]]:
    found = []
    for frame in b"".join(screen.show(item)).decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines())
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_page_is_told_the_plan_once_and_of_parts_only_what_is_new() -> None:
    live = a_live()
    screen = Screen(live)
    (name, plan), *parts = told(screen, Grown())
    assert name == "plan"
    assert [step["title"] for step in plan["steps"]] == ["The first", "two"]
    assert plan["steps"][1]["after"] == ["The first"]
    assert [(found["step"], found["state"]) for _, found in parts] == [
        ("one", "queued"),
        ("two", "blocked"),
    ]
    assert told(screen, Grown()) == []
    live.take(chunk(live, "It is", 0))
    [(_, change)] = told(screen, Grown())
    assert change["state"] == "running"
    assert (change["text"], change["anew"]) == ("It is", True)
    live.take(chunk(live, " so", 5))
    assert told(screen, Grown()) == [("part", {"step": "one", "text": " so", "anew": False})]
    live.take(chunk(live, "Oh, it is", 0, execution=8, attempt=2))
    [(_, change)] = told(screen, Grown())
    assert (change["attempt"], change["text"], change["anew"]) == (2, "Oh, it is", True)


def test_text_comes_with_its_place_so_that_a_page_can_come_back() -> None:
    screen = Screen(a_live(), text=3)
    assert told(screen, Text("\u00e9\U0001f600")) == [
        ("text", {"text": "\u00e9\U0001f600", "at": 5})
    ]
    assert told(screen, Reasoning("hm")) == [("reasoning", {"text": "hm", "thought": 2})]
    back = Screen(a_live(), thought=2)
    assert told(back, Reasoning("so")) == [("reasoning", {"text": "so", "thought": 4})]
    assert told(screen, Status("Waiting"))[0][1]["description"] == "Waiting"
    [(_, absent)] = told(screen, Status("Waiting for mill, no worker is ready"))
    assert "Workers page" in absent["description"]
    assert told(screen, Idle()) == []
    assert told(screen, Interrupted())[0][1]["code"] == "server_draining"


def test_an_end_without_an_answer_says_why_and_what_to_do() -> None:
    live = a_live()
    ending = Ending(RequestState.FAILED, error={"code": "engine_down", "message": "it is down"})
    live.end(ending)
    *parts, (name, end) = told(Screen(live), ending)
    assert name == "end"
    assert (end["error"]["code"], end["error"]["message"]) == ("engine_down", "it is down")
    assert end["error"]["remedy"]
    assert {found.get("state") for kind, found in parts if kind == "part"} == {"cancelled"}


def test_only_what_the_form_has_goes_into_the_body() -> None:
    said = [{"role": "user", "content": "Why?"}]
    form = {"model": "mill", "messages": said, "system": " ", "temperature": None, "max_tokens": 0}
    assert body_of(form | {"tools": []}) == {
        "model": "mill",
        "messages": said,
        "stream": True,
        "cache": 0,
        "max_tokens": 0,
    }
    full = body_of({"model": "m", "messages": said, "system": "Be short.", "collection": "books"})
    assert full["messages"] == [{"role": "system", "content": "Be short."}, *said]
    assert full["retrieval"] == {"collection": "books"}
    assert body_of({}) == {"model": None, "messages": None, "stream": True, "cache": 0}


@pytest.mark.parametrize("place", ["-1", "", "1e3", "٣", "9" * 16], ids=ascii)
@pytest.mark.parametrize("name", ["after", "thought"])
def test_a_place_that_is_none_is_refused(name: str, place: str) -> None:
    with pytest.raises(ApiError, match="number of characters"):
        resumed_at({name: place})


def test_an_id_is_told_from_words() -> None:
    def sought(text: str) -> tuple[str, tuple[str, ...]]:
        found = filter_of(wish_of(QueryParams({"q": text})))
        return found.beginning, tuple(found.words)

    assert sought("8438039F-9af8") == ("8438039f9af8", ())
    assert sought("abc") == ("", ("abc",))
    assert sought("mill race") == ("", ("mill", "race"))
    assert sought("----") == ("", ("----",))
    assert len(sought("a b c d e f g h i j k")[1]) == 8
