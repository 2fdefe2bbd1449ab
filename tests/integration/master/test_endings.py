"""Every stream ends once, whatever the engine does (P3, B08, B27-B29, B41, B42)."""

from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script


async def test_an_answer_is_streamed_and_recorded(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="one two three"))
    got = await mill.streamed()
    assert got.ends_once()
    assert got.text == "one two three"
    record = await mill.record(got.request)
    assert (record["state"], record["answer"]) == ("completed", got.text)
    await mill.idle()
