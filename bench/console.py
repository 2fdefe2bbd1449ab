"""Row C: the console beside 50 000 requests and 1 000 live subtasks."""

import asyncio
import gzip
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg
import httpx2

from bench import console_examples, console_filling
from bench.effort import Effort
from bench.samples import Findings, Limit, Row, percentile
from bench.site import MODEL as SERVED
from bench.site import Meter, Millrace
from millrace.chaos.machine import NO_TLS

_OTHERS: Final = ("llama3.2:3b", "gemma3:12b")
_UNHURRIED: Final = "in no hurry"
_SLOW: Final = {"kind": "slow", "contains": _UNHURRIED, "after_tokens": 1, "seconds": 20}
_SCRIPT: Final = console_examples.script()
MODEL: Final = _SCRIPT | {
    "slots": 32,
    "options": _SCRIPT["options"] | {"faults": [_SLOW, *_SCRIPT["options"]["faults"]]},
}
MORE: Final = [{"name": name, **_SCRIPT} for name in _OTHERS]
_PARTS: Final = 8
_LIVE_SUBTASKS: Final = 1000
_PAGES: Final = (
    "/console",
    "/console/requests",
    "/console/requests?state=failed",
    "/console/requests?strategy=split",
    "/console/requests?q=tentering",
    "/console/requests/{split}",
    "/console/requests/{open}",
    "/console/playground",
    "/console/documents",
    "/console/search",
    "/console/rules",
    "/console/feedback",
    "/console/workers",
    "/console/dead",
    "/console/usage",
)
_AT_MOST: Final = Limit(100, at_least=False, unit=" ms")
_VIEWERS: Final = (0, 1, 20)
_WATCHED_SECONDS: Final = 10.0


@dataclass(frozen=True)
class _Loaded:
    """One page, so many times."""

    path: str
    """With a name in braces for the request that it is about."""
    milliseconds: Sequence[float]
    size: int
    sent: int
    """Bytes that travelled; fewer where the answer was compressed."""
    packed: int
    """Bytes that a proxy would send which compresses."""

    def note(self) -> str:
        p50, p95 = (percentile(self.milliseconds, percent) for percent in (50, 95))
        served = "" if self.sent == self.size else f", sent as {_kb(self.sent)}"
        return (
            f"{self.path}: {p50:.0f} / {p95:.0f} ms, {_kb(self.size)}{served}, "
            f"{_kb(self.packed)} gzipped"
        )


@dataclass(frozen=True)
class _Watched:
    """So many viewers of the overview, for a while; all by the second."""

    viewers: int
    transactions: float
    cpu_milliseconds: Mapping[str, float]
    events: float
    """That each viewer got."""

    def note(self) -> str:
        cpu = ", ".join(f"{name} {spent:.0f}" for name, spent in self.cpu_milliseconds.items())
        return (
            f"{self.viewers} viewers: {self.transactions:.1f} transactions, CPU ms {cpu}, "
            f"{self.events:.1f} events each, a second"
        )


def console(mill: Millrace, effort: Effort) -> Findings:
    """Time and size of every page, and what viewers of the live overview cost."""
    for name in _OTHERS:
        mill.add_workers(1, name)
    return asyncio.run(_console(mill, effort))


async def _console(mill: Millrace, effort: Effort) -> Findings:
    async with _signed_in(mill) as http:
        examples = await console_examples.ask(http, SERVED)
        began = time.monotonic()
        await console_filling.fill(
            mill.database_url,
            examples,
            effort.console_requests,
            model=SERVED,
            models=(SERVED, *_OTHERS),
        )
        filled = time.monotonic() - began
        await _open_subtasks(http)
        named = await _named(mill)
        pages = [await _load(http, path, named, effort.console_loads) for path in _PAGES]
        watched = [await _watch(mill, http, viewers) for viewers in _VIEWERS]
    notes = (
        f"{effort.console_requests} requests stored in {filled:.0f} s; p50 / p95 of "
        f"{effort.console_loads} loads one after the other:",
        *(page.note() for page in pages),
        *(each.note() for each in watched),
    )
    return Findings((*map(_row, pages), *map(_cost_row, watched)), notes=notes)


@asynccontextmanager
async def _signed_in(mill: Millrace) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client with the API's key and the console's cookie."""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{mill.port}",
        headers={"authorization": f"Bearer {mill.key}"},
        timeout=60,
        trust_env=False,
        verify=NO_TLS,
    ) as http:
        answer = await http.post("/console/login", data={"key": mill.key})
        assert answer.status_code == 303, answer.text
        yield http


async def _open_subtasks(http: httpx2.AsyncClient) -> None:
    """Splits of which some parts are answered slowly and the others wait."""
    asked = "\n".join(f"{n}. Describe sluice {n}; I am {_UNHURRIED}." for n in range(1, _PARTS + 1))
    body = {"model": "millrace/split", "input": asked, "background": True}
    for _ in range(_LIVE_SUBTASKS // (_PARTS - 1)):  # now and then two parts become one
        answer = await http.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text


async def _named(mill: Millrace) -> dict[str, str]:
    """Requests whose pages are loaded."""
    connection = await asyncpg.connect(mill.database_url)
    try:
        live = await connection.fetchval(
            "SELECT count(*) FROM millrace.subtasks WHERE finished_at IS NULL"
        )
        assert live >= _LIVE_SUBTASKS, f"only {live} subtasks are open"
        query = """
            SELECT id FROM millrace.requests
             WHERE plan ->> 'strategy' = 'split' AND (finished_at IS NULL) = $1
             ORDER BY created_at DESC LIMIT 1
        """
        return {
            "split": str(await connection.fetchval(query, False)),
            "open": str(await connection.fetchval(query, True)),
        }
    finally:
        await connection.close()


async def _load(
    http: httpx2.AsyncClient, path: str, named: Mapping[str, str], loads: int
) -> _Loaded:
    times: list[float] = []
    size = sent = packed = 0
    for _ in range(loads + 1):
        began = time.perf_counter()
        async with http.stream("GET", path.format(**named)) as answer:
            body = await answer.aread()
            sent = answer.num_bytes_downloaded
        times.append(1000 * (time.perf_counter() - began))
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        size, packed = len(body), len(gzip.compress(body, 6))
    return _Loaded(path, times[1:], size, sent, packed)  # the first compiles the template


async def _watch(mill: Millrace, http: httpx2.AsyncClient, viewers: int) -> _Watched:
    """What the database and the processes do while so many look at the overview."""
    counts = [0] * viewers
    looking = [asyncio.create_task(_look(http, counts, number)) for number in range(viewers)]
    try:
        await asyncio.sleep(2)  # until all are there
        meter, before, seen = Meter(_processes(mill)), await _transactions(mill), sum(counts)
        await asyncio.sleep(_WATCHED_SECONDS)
        spent, after = meter.spent(), await _transactions(mill)
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
    return _Watched(
        viewers,
        (after - before) / _WATCHED_SECONDS,
        {name: 1000 * seconds / _WATCHED_SECONDS for name, seconds in spent.items()},
        (sum(counts) - seen) / _WATCHED_SECONDS / max(1, viewers),
    )


async def _look(http: httpx2.AsyncClient, counts: list[int], number: int) -> None:
    async with http.stream("GET", "/console/live/overview") as answer:
        assert answer.status_code == 200, answer.status_code
        async for line in answer.aiter_lines():
            counts[number] += not line  # which ends an event


def _processes(mill: Millrace) -> dict[str, list[int]]:
    return {name: mill.processes()[name] for name in ("master", "postgres")}


async def _transactions(mill: Millrace) -> int:
    connection = await asyncpg.connect(mill.database_url)
    try:
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        return int(
            await connection.fetchval(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database"
                " WHERE datname = current_database()"
            )
        )
    finally:
        await connection.close()


def _row(page: _Loaded) -> Row:
    p50 = (percentile(page.milliseconds, 50),)
    return Row("C", page.path, "ms p50", p50, judged=p50, limit=_AT_MOST)


def _cost_row(watched: _Watched) -> Row:
    title = f"overview, {watched.viewers} viewers"
    return Row("C", title, "transactions a second", (watched.transactions,))


def _kb(size: int) -> str:
    return f"{size / 1000:.1f} kB"
