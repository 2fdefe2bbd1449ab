"""Row 5: a client stops, and the engine's connection is closed.

The engine and this process read the same clock. The chat's seed goes all the way to the engine,
so the engine can say whose connection was closed when.
"""

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from bench.effort import Effort
from bench.samples import Findings, Limit, Row, percentile
from bench.site import Millrace
from bench.subtasks import PARTS, SPLIT_BODY
from bench.talk import Silence, Talk

MODEL = {"provider": "openai", "engine_model": "500x20", "slots": 64}
"""Ten seconds of text: nobody is through before the stop."""
_WORDS = 500
_PARTS_BEGIN_SECONDS = 0.15
"""From the first word of a split to the stop, so that all its parts are at work."""
_WITHIN_SECONDS = 5.0
_LIMIT = Limit(100, at_least=False)

Stop = Callable[[Talk], float]


def stops(mill: Millrace, effort: Effort) -> Findings:
    """Milliseconds from the stop to the moment when the engine sees its connection closed."""
    seeds = count(1)
    kinds: tuple[tuple[str, Stop, Mapping[str, Any], int], ...] = (
        ("client leaves", Talk.leave, {}, 1),
        ("DELETE", Talk.delete, {}, 1),
        (f"split of {PARTS}, client leaves", Talk.leave, SPLIT_BODY, PARTS),
    )
    rows, notes = [], []
    for title, stop, body, parts in kinds:
        rounds = []
        for _ in range(effort.rounds):
            wanted = [next(seeds) for _ in range(effort.stops)]
            rounds.append(_measure(mill, stop, body, parts, wanted))
        worst = tuple(percentile(each, 99) for each in rounds)
        all_ = [number for each in rounds for number in each]
        rows.append(
            Row("5", f"stop: {title}", "ms p99", worst, judged=worst, limit=_LIMIT),
        )
        notes.append(
            f"stop, {title}: {len(all_)} stops, p50 {percentile(all_, 50):.1f} ms, "
            f"p99 {percentile(all_, 99):.1f} ms, longest {max(all_):.1f} ms"
        )
    return Findings(tuple(rows), notes=tuple(notes))


def _measure(
    mill: Millrace, stop: Stop, body: Mapping[str, Any], parts: int, seeds: list[int]
) -> list[float]:
    def one(seed: int) -> float:
        with Talk(mill.target(_WORDS, {**body, "seed": seed})) as talk:
            talk.read_until(1)
            if parts > 1:
                time.sleep(_PARTS_BEGIN_SECONDS)
            return stop(talk)

    stopped = {seed: one(seed) for seed in seeds}
    left = _left(mill, dict.fromkeys(seeds, parts))
    return [1000 * (max(left[seed]) - at) for seed, at in stopped.items()]


def _left(mill: Millrace, expected: Mapping[int, int]) -> dict[int, list[float]]:
    """When the engine's connections were closed, by seed: of every part, and of each once."""
    end = time.monotonic() + _WITHIN_SECONDS
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{mill.servers.engine_port}/left") as answer:
            found = {int(seed or 0): times for seed, times in json.load(answer).items()}
        numbers = {seed: len(found.get(seed, ())) for seed in expected}
        if numbers == expected:
            return found
        if time.monotonic() > end:
            wrong = {seed: n for seed, n in numbers.items() if n != expected[seed]}
            raise Silence(f"connections closed by seed: {wrong}, expected {expected}")
        time.sleep(0.05)
