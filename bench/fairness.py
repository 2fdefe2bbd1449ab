"""Row 6: one user's 200 parts, and another user's single question at the same time."""

import asyncio
import statistics
import time
from concurrent.futures import Future, ThreadPoolExecutor

import asyncpg

from bench.effort import Effort
from bench.load import Load, Order, run
from bench.samples import Findings, Row, ratios
from bench.site import Millrace
from bench.subtasks import PARTS, SPLIT_BODY
from bench.talk import Silence

_WORDS, _PAUSE = 10, 20
_SLOTS = 8
MODEL = {"provider": "openai", "engine_model": f"{_WORDS}x{_PAUSE}", "slots": _SLOTS}
_SPLITS = 25
_QUESTIONS = 4
_WITHIN_SECONDS = 20.0


def fairness(mill: Millrace, effort: Effort) -> Findings:
    """How long the single question waits, against the same question with nobody else there."""
    single = mill.target(_WORDS, {"user": "one question"})
    wide = mill.target(PARTS * _WORDS, {**SPLIT_BODY, "user": "two hundred parts"}, "wide")
    questions = Order((single,), 1, _QUESTIONS, 0.05)
    run(questions)
    alone, beside, seconds = [], [], []
    with ThreadPoolExecutor(1) as other:
        for _ in range(effort.rounds):
            alone.append(1000 * statistics.median(run(questions).firsts["millrace"]))
            splits = other.submit(run, Order((wide,), _SPLITS, 1))
            asyncio.run(_until_waiting(mill.database_url, PARTS * _SPLITS // 2, splits))
            load = run(questions)
            if splits.done():
                raise Silence("the 200 parts were through before the questions")
            beside.append(1000 * statistics.median(load.firsts["millrace"]))
            seconds.append(splits.result().seconds)
    title = f"a question beside {PARTS * _SPLITS} parts"
    ours, theirs = tuple(beside), tuple(alone)
    row = Row("6", title, "ms p50", ours, "itself alone", theirs, ratios(ours, theirs))
    generation = _WORDS * _PAUSE
    waits = statistics.median(b - a for a, b in zip(alone, beside, strict=True))
    note = (
        f"fair: the parts take {statistics.median(seconds):.1f} s on {_SLOTS} slots, "
        f"{generation} ms each; the question waits {waits / generation:.1f} generations"
    )
    return Findings((row,), notes=(note,))


async def _until_waiting(url: str, number: int, splits: Future[Load]) -> None:
    """Wait until so many parts are in front of the questions."""
    query = "SELECT count(*) FROM millrace.subtasks WHERE state IN ('ready', 'queued')"
    connection = await asyncpg.connect(url)
    try:
        end = time.monotonic() + _WITHIN_SECONDS
        while int(await connection.fetchval(query)) < number:
            if splits.done() or time.monotonic() > end:
                raise Silence("the 200 parts never waited together")
            await asyncio.sleep(0.02)
    finally:
        await connection.close()
