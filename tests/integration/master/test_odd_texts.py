"""Engines say odd things; the answer arrives, is stored, and is the same in both places."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from queue_schemas.messages import ErrorKind
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script
from tests.integration.master.moody import Moody, Turn, always
from worker.providers.protocol import ProviderError

ODD = {
    "nul": "before\x00after",
    "half a surrogate pair": "before\ud83dafter",
    "an emoji in two halves": "before \ud83d\ude00 after",
    "line breaks": "a\r\nb\rc\n\nd\u2028e\u2029f",
    "frames": "\n\ndata: [DONE]\n\ndata: {}\n\n",
    "controls": "\x01\x07\x1b[31m\x7f\x85",
    "bidi and zero width": "\u202eabc\u200b\ufeff",
    "not a character": "\uffff\U0010ffff",
    "nothing": "",
    "only spaces": "   \n ",
}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_answer_is_the_same_for_client_and_record(
    make_mill: MakeMill, name: str
) -> None:
    engine = Moody(Turn(ODD[name]))
    mill = await make_mill(a_script(), provider=always(engine), max_attempts=2)
    got = await asyncio.wait_for(mill.streamed(), 60)
    assert got.ends_once()
    record = await mill.record(got.request)
    assert record["state"] == "completed"
    assert record["answer"] == got.text
    assert len(engine.asked) == 1
    whole = await mill.ask()
    assert whole.json()["choices"][0]["message"]["content"] == got.text


BROKEN = {"nul": "a\x00b", "half a surrogate pair": "a\ud83db"}
MENDED = "a\ufffdb"


def a_call(text: str) -> dict[str, Any]:
    function = {"name": "look_up", "arguments": f'{{"word":"{text}"}}'}
    return {"id": f"call_{text}", "type": "function", "function": function}


def some_logprobs(text: str) -> dict[str, Any]:
    entry = {"token": text, "logprob": -0.5, "bytes": [97, 0, 98]}
    return {"content": [{**entry, "top_logprobs": [{**entry, text: None}]}]}


@pytest.mark.parametrize("name", BROKEN)
async def test_odd_tool_calls_and_log_probabilities_are_mended_and_counted(
    make_mill: MakeMill, name: str
) -> None:
    odd = BROKEN[name]
    engine = Moody(Turn("one", tool_calls=(a_call(odd),), logprobs=some_logprobs(odd)))
    mill = await make_mill(a_script(), provider=always(engine), max_attempts=2)
    with capture_logs() as logs:
        got = await asyncio.wait_for(mill.streamed(), 60)
    assert got.ends_once()
    assert len(engine.asked) == 1
    choices = [choice for frame in got.frames[:-1] for choice in frame["choices"]]
    (calls,) = [c["delta"]["tool_calls"] for c in choices if "tool_calls" in c["delta"]]
    assert calls == [{"index": 0, **a_call(MENDED)}]
    assert choices[-1]["logprobs"] == some_logprobs(MENDED)
    ((stored, logprobs),) = await mill.rows("SELECT tool_calls, logprobs FROM millrace.subtasks")
    assert stored == [a_call(MENDED)]
    assert logprobs == some_logprobs(MENDED)
    (counted,) = [entry for entry in logs if entry["event"] == "execute.mended"]
    assert counted["characters"] == 5
    whole = await mill.ask()
    message = whole.json()["choices"][0]["message"]
    assert message["tool_calls"] == [a_call(MENDED)]


async def test_a_log_probability_that_is_no_number_is_one_of_openais(make_mill: MakeMill) -> None:
    def entries(*values: float | None) -> dict[str, Any]:
        return {"content": [{"token": "a", "logprob": value} for value in values]}

    engine = Moody(Turn("one", logprobs=entries(float("-inf"), float("nan"), -1.5)))
    mill = await make_mill(a_script(), provider=always(engine), max_attempts=2)
    got = await asyncio.wait_for(mill.ask(), 60)
    assert got.json()["choices"][0]["logprobs"] == entries(-9999.0, None, -1.5)


@pytest.mark.parametrize("name", BROKEN)
async def test_an_error_in_odd_words_is_the_requests_error(make_mill: MakeMill, name: str) -> None:
    said = ProviderError(ErrorKind.PERMANENT, "bad_request", f"no: {BROKEN[name]}")
    mill = await make_mill(a_script(), provider=always(Moody(Turn("one", error=said))))
    got = await asyncio.wait_for(mill.streamed(), 60)
    assert got.error["message"] == f"no: {MENDED}"
    assert (await mill.record(got.request))["error"]["message"] == f"no: {MENDED}"
