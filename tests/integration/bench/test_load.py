"""The benchmark's own engine and load generator, on each other."""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import LoadFailed, Order, Target, run
from bench.processes import answers, start, wait_for
from bench.samples import percentile
from bench.talk import Talk
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


def test_the_longest_silence_within_an_answer_is_found(port: int) -> None:
    load = run(Order((chat(port, "4x50", 4),), clients=2, chats=2, spread=0.01))
    assert all(0.04 <= gap < 40 for gap in load.gaps["4x50"])


def test_the_engine_knows_when_which_client_left_in_the_middle(port: int) -> None:
    body = {"model": "5000x20", "stream": True, "seed": 7}  # for 100 seconds
    with Talk(Target("slow", port, body, 5000)) as talk:
        talk.read_until(1)
        left_at = talk.leave()
    run(Order((chat(port, "3", 3),), clients=1, chats=1))
    left = {}
    end = time.monotonic() + 60
    while not left and time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/left") as answer:
            left = json.load(answer)
    (seen_at,) = left.pop("7")
    assert left == {}, "who reads to the end has not left"
    assert left_at <= seen_at < left_at + 60


def test_a_percentile_is_a_number_that_was_measured() -> None:
    numbers = [float(n) for n in range(100, 0, -1)]
    assert (percentile(numbers, 50), percentile(numbers, 99), percentile([3.0], 99)) == (50, 99, 3)
