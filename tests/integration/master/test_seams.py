"""An engine that dies in mid-answer, as clients see it: one text, and the seam in the record."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from millrace.chaos.engine import Reply, serve
from millrace.chaos.openai_engine import OpenAIEngine
from tests.integration.master.conftest import MakeMill

CUT = Reply(words=("The mill", " turns"), cut_after=2)
SEAM = {"offset": 14, "provider": "openai:other", "code": "upstream_truncated"}


@dataclass(frozen=True)
class Pair:
    """Two engines and the entry that names both."""

    first: OpenAIEngine
    second: OpenAIEngine
    entry: dict[str, Any]


@pytest.fixture
def pair() -> Iterator[Pair]:
    first, second = OpenAIEngine(CUT), OpenAIEngine(Reply(words=(" slow", "ly.")), ("other",))
    with serve(first) as here, serve(second) as there:
        other = {"provider": "openai", "endpoint": f"{there}/v1", "engine_model": "other"}
        model = {"name": "mill", "provider": "openai", "endpoint": f"{here}/v1"}
        yield Pair(first, second, model | {"fallbacks": [other]})


async def test_an_engine_killed_in_mid_answer_is_seen_in_the_record_alone(
    pair: Pair, make_mill: MakeMill
) -> None:
    mill = await make_mill(pair.entry)

    stream = await mill.streamed()

    assert (stream.text, stream.ends_once()) == ("The mill turns slowly.", True)
    (subtask,) = (await mill.record(stream.request))["subtasks"]
    (attempt,) = subtask["attempts"]
    assert (attempt["outcome"], attempt["seams"]) == ("completed", [SEAM])
    assert attempt["estimated"]


async def test_an_answer_of_one_engine_has_no_seams(pair: Pair, make_mill: MakeMill) -> None:
    pair.first.reply = Reply()
    mill = await make_mill(pair.entry)

    stream = await mill.streamed()

    (subtask,) = (await mill.record(stream.request))["subtasks"]
    assert [attempt["seams"] for attempt in subtask["attempts"]] == [[]]


async def test_when_both_break_off_the_seams_are_in_the_failed_attempt(
    pair: Pair, make_mill: MakeMill
) -> None:
    pair.second.replies.append(Reply(words=(" slow",), cut_after=1))
    pair.first.replies += [CUT, Reply(words=("The mill", " turns", " slow", "ly."))]
    mill = await make_mill(pair.entry)

    stream = await mill.streamed()

    assert (stream.text, stream.ends_once()) == ("The mill turns slowly.", True)
    (subtask,) = (await mill.record(stream.request))["subtasks"]
    seams = {attempt["attempt"]: attempt["seams"] for attempt in subtask["attempts"]}
    assert seams == {1: [SEAM], 2: []}
