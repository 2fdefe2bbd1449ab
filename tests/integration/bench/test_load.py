"""The benchmark's own engine and load generator, on each other."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import LoadFailed, Order, Target, run
from bench.processes import answers, start, wait_for
from millrace.chaos.machine import free_port


def chat(port: int, script: str, words: int) -> Target:
    """A chat with the engine's model of that name."""
    return Target(script, port, {"model": script, "stream": True}, words)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of an engine of its own."""
    port = free_port()
    engine = start("engine", [sys.executable, "-m", "bench.engine", str(port)], tmp_path)
    try:
        wait_for(engine, lambda: answers(f"http://127.0.0.1:{port}/v1/models"))
        yield port
    finally:
        engine.stop()


def test_every_client_gets_every_answer_whole(port: int) -> None:
    load = run(Order((chat(port, "32", 32), chat(port, "3", 3)), clients=4, chats=5))
    assert load.failures == []
    for name in ("32", "3"):
        times = list(zip(load.firsts[name], load.totals[name], strict=True))
        assert len(times) == 20
        assert all(0 < first <= total for first, total in times)


def test_a_paced_engine_takes_its_time(port: int) -> None:
    load = run(Order((chat(port, "4x25", 4),), clients=1, chats=3))
    times = zip(load.firsts["4x25"], load.totals["4x25"], strict=True)
    # The engine's event loop counts in whole milliseconds.
    assert all(0.023 <= first < total and total >= 0.098 for first, total in times)


def test_an_answer_with_too_few_words_is_no_measurement(port: int) -> None:
    with pytest.raises(LoadFailed, match="31 words instead of 32"):
        run(Order((chat(port, "31", 32),), clients=1, chats=1))


def test_a_refusal_is_no_measurement(port: int) -> None:
    with pytest.raises(LoadFailed, match="no such model"):
        run(Order((chat(port, "mill", 1),), clients=1, chats=1))
