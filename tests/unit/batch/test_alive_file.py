"""The file that says to probes that a Celery worker lives."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from master.batch import alive


def consumer(*, connected: bool = True, clock: bool | None = None) -> SimpleNamespace:
    """What Celery gives a step; `clock`: whether its process lives, None without one."""
    beat = None if clock is None else SimpleNamespace(is_alive=lambda: clock)
    connection = SimpleNamespace(connected=connected)
    return SimpleNamespace(connection=connection, controller=SimpleNamespace(beat=beat))


@pytest.mark.parametrize("clock", [None, True])
def test_it_is_touched_while_the_worker_is_connected(tmp_path: Path, clock: bool | None) -> None:
    file = tmp_path / "alive"
    alive.touch_if_alive(consumer(clock=clock), file)
    os.utime(file, (0, 0))
    alive.touch_if_alive(consumer(clock=clock), file)
    assert file.stat().st_mtime > 0


@pytest.mark.parametrize(
    "lost",
    [
        consumer(connected=False),
        consumer(clock=False),
        SimpleNamespace(connection=None, controller=SimpleNamespace(beat=None)),
    ],
    ids=["no connection", "its clock has died", "not connected yet"],
)
def test_it_is_left_alone_without_broker_or_clock(tmp_path: Path, lost: SimpleNamespace) -> None:
    file = tmp_path / "alive"
    alive.touch_if_alive(lost, file)
    assert not file.exists()


def test_the_file_of_an_earlier_life_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    file.touch()
    alive.prepare(file)
    assert not file.exists()


@pytest.mark.parametrize("name", ["missing/alive", "."])
def test_a_place_that_cannot_be_written_is_an_error_at_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"directory|permitted"):
        alive.prepare(tmp_path / name)
