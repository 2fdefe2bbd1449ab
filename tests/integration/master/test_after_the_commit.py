"""What follows the commit of a result may fail; the result is stored, and is not touched again."""

import pytest

from master import spans
from queue_schemas import topology
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script


async def test_a_span_that_cannot_be_made_costs_no_result(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def broken(*of: object) -> None:
        asked.append(of)
        raise RuntimeError("no span")

    monkeypatch.setattr(spans, "collected", broken)
    mill = await make_mill(a_script(text="flour and bran"))
    answer = await mill.ask()
    assert answer.json()["choices"][0]["message"]["content"] == "flour and bran"
    assert asked

    assert not mill.broker.queues[topology.QUARANTINE.name].ready
