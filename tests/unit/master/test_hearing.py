"""Who stood still, waited, or had a clock set, lets a whole lease go by before anyone is silent."""

import asyncio
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from master import hearing
from master.hearing import Hearing

LEASE = 30.0


class Ours:
    """The clock of this process, and what happens as it goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.ahead = 5_000.0
        """The database's clock, before ours."""
        self.unwritten = 0.0
        monkeypatch.setattr(hearing, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.hearing = Hearing(LEASE, lambda: self.unwritten)

    def turns(self, seconds: float) -> None:
        """So much time passes, and the process runs."""
        for _ in range(round(seconds * 2)):
            self.now += 0.5
            self.hearing._look()

    async def agrees(self, *, took: float = 0.0) -> bool:
        async def ask() -> float:
            said = self.now + self.ahead
            self.now += took
            return said

        return await self.hearing.agrees(ask)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Ours:
    """A process that has heard its workers for long."""
    made = Ours(monkeypatch)
    assert not made.hearing.is_complete
    made.turns(LEASE - 1)
    assert not made.hearing.is_complete
    made.turns(1)
    assert made.hearing.is_complete
    return made


def test_a_process_that_stood_still_hears_for_a_lease(ours: Ours) -> None:
    with capture_logs() as logs:
        ours.now += LEASE
        assert not ours.hearing.is_complete
        ours.turns(LEASE - 1)
        ours.now += LEASE  # again, before it was over
        assert not ours.hearing.is_complete
        ours.turns(LEASE - 1)
        assert not ours.hearing.is_complete
        ours.turns(1)
    assert ours.hearing.is_complete
    assert [(line["event"], line["seconds"]) for line in logs] == [
        ("sweep.stood_still", LEASE - 0.5)
    ] * 2


def test_a_short_stop_costs_nothing(ours: Ours) -> None:
    ours.now += LEASE / 2
    assert ours.hearing.is_complete


def test_while_nothing_is_written_nobody_is_heard(ours: Ours) -> None:
    ours.unwritten = LEASE / 2
    ours.turns(1)
    assert ours.hearing.is_complete
    with capture_logs() as logs:
        ours.unwritten = LEASE / 2 + 1
        ours.turns(2 * LEASE)
        assert not ours.hearing.is_complete
        ours.unwritten = 0.0
        ours.turns(LEASE - 1)
        assert not ours.hearing.is_complete
        ours.turns(1)
    assert ours.hearing.is_complete
    assert [line["event"] for line in logs] == ["sweep.nothing_written"]


async def test_a_clock_that_leaps_is_no_time_in_which_anyone_was_silent(ours: Ours) -> None:
    assert await ours.agrees()
    ours.ahead += LEASE  # a laptop slept: its monotonic clock did not go on
    with capture_logs() as logs:
        assert not await ours.agrees()
    assert not ours.hearing.is_complete
    assert [(line["event"], line["seconds"]) for line in logs] == [("sweep.clock_leapt", LEASE)]
    assert await ours.agrees()
    ours.turns(LEASE)
    assert ours.hearing.is_complete


async def test_clocks_that_drift_or_are_set_back_agree(ours: Ours) -> None:
    assert await ours.agrees()
    for drift in (1.0, -3600.0, LEASE / 2):
        ours.ahead += drift
        assert await ours.agrees(took=0.1)
    assert ours.hearing.is_complete


async def test_an_answer_that_took_too_long_says_nothing(ours: Ours) -> None:
    assert await ours.agrees(took=LEASE / 2)
    assert not await ours.agrees(took=LEASE / 2 + 1)
    assert not ours.hearing.is_complete


async def test_it_watches_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "_TICK_SECONDS", 0.0)
    ours = Ours(monkeypatch)
    ours.turns(LEASE)
    watching = asyncio.create_task(ours.hearing.watch())
    ours.now += LEASE
    for _ in range(10):
        await asyncio.sleep(0)
    watching.cancel()
    assert ours.hearing._complete_at == ours.now + LEASE
