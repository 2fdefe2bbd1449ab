"""How many workers `millrace up` has while a burst comes and goes, on a real RabbitMQ and Postgres.

Questions are asked over the API; the engine is scripted, everything else is the real thing: the
master and the workers are processes, and the rule is that of the HPA. Its window and its period
are a tenth of the default ones, or the picture would take a quarter of an hour.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from pathlib import Path

import httpx2
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.depths import Depth, depths
from db.engine import create_engine
from millrace import logs
from millrace.chaos.local_postgres import LocalPostgres
from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.stack import Stack
from millrace.scaling import autoscaler
from millrace.scaling.autoscaler import Autoscaler
from millrace.scaling.processes import WorkerProcesses
from millrace.scaling.settings import ScalingSettings
from queue_schemas.registry import Registry

SCALING = ScalingSettings(seconds=2, down_window_seconds=30, down_workers=1, down_period_seconds=6)
ANSWER_SECONDS = 6
MOST_WORKERS = 8
MODEL = {
    "name": "mill",
    "provider": "scripted",
    "min_workers": 1,
    "max_workers": MOST_WORKERS,
    "options": {"text": "flour", "tokens": 10 * ANSWER_SECONDS, "tokens_per_second": 10},
}
BURSTS = ((8, 40), (72, 3))
"""When so many questions come at once."""
SECONDS = 150
EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Sample:
    """One look."""

    at: float
    waiting: int
    running: int
    wanted: int
    processes: int
    """Those that drain included."""


# --- the run ------------------------------------------------------------------------------------


async def run() -> list[Sample]:
    """Start it all, let the bursts come, look twice a second."""
    async with _installation() as (stack, engine):
        registry = Registry.model_validate({"models": [MODEL]})
        start = WorkerProcesses(lambda: registry, stack.folder).start
        scaler = Autoscaler(lambda: registry, partial(_look, engine), start, SCALING)
        async with autoscaler.running(scaler):
            await stack.until_workers(1)
            return await _watch(stack, engine, scaler)


@contextlib.asynccontextmanager
async def _installation() -> AsyncGenerator[tuple[Stack, AsyncEngine]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalRabbit() as rabbit,
        contextlib.closing(LocalPostgres()) as postgres,
    ):
        url = postgres.start().url()
        engine = create_engine(url, pool_size=2)
        await migrate.upgrade(engine)
        stack = Stack(Path(folder), url, rabbit.url(), {"models": [MODEL]})
        os.environ["RABBITMQ_URL"] = rabbit.url()  # for the workers
        try:
            await stack.start()
            yield stack, engine
        finally:
            stack.close()
            await engine.dispose()


async def _look(engine: AsyncEngine) -> Mapping[str, Depth]:
    async with engine.connect() as connection:
        return await depths(connection)


async def _watch(stack: Stack, engine: AsyncEngine, scaler: Autoscaler) -> list[Sample]:
    began, samples = time.monotonic(), list[Sample]()
    async with stack.http() as http, asyncio.TaskGroup() as group:
        bursts = list(BURSTS)
        while (at := time.monotonic() - began) < SECONDS:
            if bursts and at >= bursts[0][0]:
                for _ in range(bursts.pop(0)[1]):
                    group.create_task(_ask(http))
            samples.append(await _sample(at, engine, scaler))
            await asyncio.sleep(EVERY_SECONDS)
    return samples


async def _ask(http: httpx2.AsyncClient) -> None:
    body = {"model": "mill", "messages": [{"role": "user", "content": "grind"}]}
    answer = await http.post("/v1/chat/completions", json=body, timeout=SECONDS)
    answer.raise_for_status()


async def _sample(at: float, engine: AsyncEngine, scaler: Autoscaler) -> Sample:
    depth = (await _look(engine)).get("mill", Depth())
    pool = scaler.pools["mill"]
    alive = sum(worker.process.poll() is None for worker in pool.workers)
    return Sample(round(at, 2), depth.queued, sum(depth.running.values()), pool.wanted, alive)


# --- the picture --------------------------------------------------------------------------------

_WIDTH, _LEFT, _RIGHT = 660, 52, 20
_DEEP, _LOW, _TOP, _BETWEEN = 190, 150, 64, 44
_WAITING, _RUNNING, _WORKERS, _WANTED = "#f2b880", "#4c78a8", "#9ecae1", "#1f4e79"
_HEIGHT = _TOP + _DEEP + _BETWEEN + _LOW + 92


@dataclass(frozen=True)
class Panel:
    """One of the two charts: where it is, and what its highest value is."""

    top: int
    height: int
    most: int
    step: int

    def y(self, value: float) -> float:
        """Where a value is."""
        return self.top + self.height * (1 - value / self.most)


def svg(samples: Sequence[Sample]) -> str:
    """Above, what is on the queue; below, the workers that it has."""
    peak = max(sample.waiting + sample.running for sample in samples)
    above = Panel(_TOP, _DEEP, -(-peak // 5) * 5, 5)
    below = Panel(_TOP + _DEEP + _BETWEEN, _LOW, MOST_WORKERS, 2)
    wide = _LEFT + _WIDTH + _RIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {_HEIGHT}" '
        f'width="{wide}" height="{_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{_HEIGHT}" rx="6" fill="#ffffff"/>',
        _text(_LEFT, 22, "A burst on one machine: workers follow the queue", weight="bold"),
        *_grid(above),
        _area(samples, above, lambda s: s.waiting + s.running, _WAITING),
        _area(samples, above, lambda s: s.running, _RUNNING),
        *_grid(below),
        _area(samples, below, lambda s: s.processes, _WORKERS),
        _line(samples, below, lambda s: s.wanted, _WANTED),
        *_seconds(below),
        *_legend(_TOP - 14, ("subtasks that wait", _WAITING), ("subtasks that run", _RUNNING)),
        *_legend(below.top - 14, ("worker processes", _WORKERS), ("wanted by the rule", _WANTED)),
        *_caption(),
    ]
    return "\n".join([*lines, "</svg>", ""])


def _x(at: float) -> float:
    return _LEFT + _WIDTH * at / SECONDS


def _corners(
    samples: Sequence[Sample], panel: Panel, value: Callable[[Sample], int]
) -> Iterator[str]:
    """A staircase: every value holds until the next look."""
    before: int | None = None
    for sample in samples:
        now = value(sample)
        if before is not None and now != before:
            yield f"{_x(sample.at):.1f},{panel.y(before):.1f}"
        if now != before:
            yield f"{_x(sample.at):.1f},{panel.y(now):.1f}"
        before = now
    yield f"{_x(SECONDS):.1f},{panel.y(before or 0):.1f}"


def _area(
    samples: Sequence[Sample], panel: Panel, value: Callable[[Sample], int], colour: str
) -> str:
    floor = f"{panel.y(0):.1f}"
    corners = (
        f"{_x(0):.1f},{floor}",
        *_corners(samples, panel, value),
        f"{_x(SECONDS):.1f},{floor}",
    )
    return f'<polygon points="{" ".join(corners)}" fill="{colour}"/>'


def _line(
    samples: Sequence[Sample], panel: Panel, value: Callable[[Sample], int], colour: str
) -> str:
    points = " ".join(_corners(samples, panel, value))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _grid(panel: Panel) -> Iterator[str]:
    for value in range(0, panel.most + 1, panel.step):
        y = panel.y(value)
        yield (
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDTH}" y2="{y:.1f}" stroke="#dddddd"/>'
        )
        yield _text(_LEFT - 8, y + 4, str(value), anchor="end")


def _seconds(panel: Panel) -> Iterator[str]:
    for at in range(0, SECONDS + 1, 15):
        yield _text(_x(at), panel.y(0) + 18, f"{at} s", anchor="middle")


def _legend(y: float, *entries: tuple[str, str]) -> Iterator[str]:
    for place, (name, colour) in enumerate(entries):
        x = _LEFT + 150 * place
        yield f'<rect x="{x}" y="{y - 10:.1f}" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 16, y, name)


def _caption() -> Iterator[str]:
    bursts = " and ".join(f"{number} questions at {at} s" for at, number in BURSTS)
    window, period = SCALING.down_window_seconds, SCALING.down_period_seconds
    said = (
        f"{bursts}, {ANSWER_SECONDS} s each; 1 to {MOST_WORKERS} workers.",
        "The queue is a window: what does not fit into it waits in Postgres.",
        f"A worker goes after {window:g} s in which it was not wanted, at most one in {period:g} s"
        ": a tenth of the default times.",
    )
    for place, line in enumerate(said):
        yield _text(_LEFT, _HEIGHT - 44 + 16 * place, line, colour="#555555")


def _text(
    x: float,
    y: float,
    said: str,
    anchor: str = "start",
    weight: str = "normal",
    colour: str = "#222222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(said)}</text>'
    )


def main() -> None:
    """Run it, or draw an earlier run again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, help="draw the run")
    parser.add_argument("--again", type=Path, metavar="JSON", help="of an earlier run; runs none")
    given = parser.parse_args()
    logs.configure()
    if given.again:
        samples = [Sample(**each) for each in json.loads(given.again.read_text("utf-8"))]
    else:
        samples = asyncio.run(run())
        sys.stdout.write(json.dumps([asdict(sample) for sample in samples]) + "\n")
    if given.svg:
        given.svg.write_text(svg(samples), "utf-8")


if __name__ == "__main__":
    main()
