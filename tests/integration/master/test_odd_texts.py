"""Engines say odd things; the answer arrives, is stored, and is the same in both places."""

import asyncio

import pytest

from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script
from tests.integration.master.moody import Moody, Turn, always

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
    got = await asyncio.wait_for(mill.streamed(), 10)
    assert got.ends_once()
    record = await mill.record(got.request)
    assert record["state"] == "completed"
    assert record["answer"] == got.text
    assert len(engine.asked) == 1
    whole = await mill.ask()
    assert whole.json()["choices"][0]["message"]["content"] == got.text
