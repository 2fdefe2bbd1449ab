"""While the broker is away, what the database knows is shown, and that the broker is away."""

from typing import Any

import pytest

from bus.protocol import BusUnavailable, Depth
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script


async def away(queue: str) -> Depth | None:
    raise BusUnavailable(f"there is no connection to ask for {queue}")


async def test_queues_have_the_numbers_of_the_database(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await make_mill(a_script(tokens=5000, tokens_per_second=10))
    asked = {"model": "mill", "input": "Why?", "background": True}
    assert (await mill.http.post("/v1/responses", json=asked)).status_code == 200

    async def queues(running: int) -> dict[str, Any] | None:
        answer = await mill.http.get("/v1/queues")
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said if said["data"][0]["db_running"] == running else None

    before = await until(lambda: queues(1), 30)
    assert before["broker_answers"] is True
    assert (before["data"][0]["ready"], before["data"][0]["consumers"]) == (0, 1)
    monkeypatch.setattr(mill.running.bus, "depth", away)
    after = await queues(1)
    assert after is not None
    assert after["broker_answers"] is False
    numbers = {"ready": None, "consumers": None}
    assert after["data"] == [before["data"][0] | numbers]
    ready = await mill.http.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"]["broker"] == "no answer (BusUnavailable)"
