from uuid import UUID

from worker.tombstones import MOST, Tombstones


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_cancelled_subtask_is_remembered_for_its_time() -> None:
    clock = Clock()
    tombstones = Tombstones(10, clock)
    tombstones.update([UUID(int=1)])

    clock.now += 9
    assert UUID(int=1) in tombstones
    assert UUID(int=2) not in tombstones
    clock.now += 2
    assert UUID(int=1) not in tombstones


def test_old_ones_are_forgotten_when_new_ones_come() -> None:
    clock = Clock()
    tombstones = Tombstones(10, clock)
    tombstones.update(UUID(int=n) for n in range(100))
    clock.now += 11
    tombstones.update([UUID(int=1000)])

    assert len(tombstones) == 1


def test_there_are_never_too_many_and_the_oldest_go_first() -> None:
    tombstones = Tombstones(10, Clock())
    tombstones.update(UUID(int=n) for n in range(MOST + 5))

    assert len(tombstones) == MOST
    assert UUID(int=4) not in tombstones
    assert UUID(int=5) in tombstones
