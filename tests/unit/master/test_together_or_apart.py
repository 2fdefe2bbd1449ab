"""One request that cannot be swept does not hold up the others."""

from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import OperationalError

from bus.protocol import BusError
from master.sweep import _together_or_apart

BAD, ONE, TWO = (uuid4() for _ in range(3))
ROWS = [(ONE, 1), (BAD, 2), (TWO, 3), (ONE, 4)]


def request_of(row: tuple[UUID, int]) -> UUID:
    return row[0]


class Work:
    """Refuses whatever has the bad request in it."""

    def __init__(self, refusal: Exception) -> None:
        self._refusal = refusal
        self.done: list[int] = []
        self.calls = 0

    async def __call__(self, rows: Sequence[tuple[UUID, int]]) -> None:
        self.calls += 1
        if any(request == BAD for request, _ in rows):
            raise self._refusal
        self.done += [number for _, number in rows]


async def test_the_others_are_worked_on_and_a_request_stays_whole() -> None:
    work = Work(ValueError("the database will not have it"))
    await _together_or_apart(ROWS, request_of, work)
    assert work.done == [1, 4, 3]


async def test_without_a_refusal_it_is_one_piece_of_work() -> None:
    work = Work(ValueError())
    await _together_or_apart([ROWS[0], *ROWS[2:]], request_of, work)
    assert (work.calls, work.done) == (1, [1, 3, 4])


async def test_without_rows_there_is_no_work() -> None:
    work = Work(ValueError())
    await _together_or_apart([], request_of, work)
    assert work.calls == 0


@pytest.mark.parametrize(
    "outage",
    [OperationalError("", {}, Exception()), BusError(), TimeoutError()],
    ids=["database", "broker", "time"],
)
async def test_an_outage_is_nobody_in_particular(outage: Exception) -> None:
    work = Work(outage)
    with pytest.raises(type(outage)):
        await _together_or_apart(ROWS, request_of, work)
    assert work.calls == 1
