"""Row O: what metrics and traces cost, as throughput against the same system unobserved.

Prometheus is played by this process, which reads both `/metrics` once a second. Each way of
watching has an installation of its own; they are measured in turn, round by round.
"""

import contextlib
import statistics
import threading
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from bench import chats, subtasks
from bench.effort import Effort
from bench.load import Order, Target, run
from bench.samples import Cost, Findings, Limit, Row, cost, ratios
from bench.site import Meter, Millrace, Servers, millrace
from millrace.chaos.machine import free_port

_PLAIN = "unobserved"
_SCRAPED = "scraped"
_TRACED: Mapping[str, float] = {"scraped, 1 % traced": 0.01, "scraped, all traced": 1.0}
_SCRAPE_SECONDS = 1.0
_OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
_LIMIT = Limit(0.9, at_least=True)
"""For metrics, and for a share of the traces; every trace is for looking into something."""
_SUBTASK_CLIENTS, _CHAT_CLIENTS = 64, 16


@dataclass
class _Watched:
    """One way of watching, and what came of it."""

    mill: Millrace
    target: Target
    pages: tuple[str, ...] = ()
    rates: list[float] = field(default_factory=list)
    spent: list[dict[str, float]] = field(default_factory=list)

    def measure(self, clients: int, number: int) -> None:
        """One round."""
        each = max(2, number // clients)
        meter = Meter(self.mill.processes())
        with _scraping(self.pages):
            load = run(Order((self.target,), clients, each))
        self.rates.append(load.per_second)
        spent = meter.spent()
        self.spent.append({name: seconds / (clients * each) for name, seconds in spent.items()})


def observing(servers: Servers, effort: Effort) -> Findings:
    """Durable subtasks, then streamed chats."""
    durable = _rounds(
        servers, effort, subtasks.MODEL, 1, (_SUBTASK_CLIENTS, effort.subtasks), stream=False
    )
    streamed = _rounds(
        servers, effort, chats.MODEL, chats.CHUNKS, (_CHAT_CLIENTS, effort.chats), stream=True
    )
    return Findings(
        (*_rows("subtasks", durable), *_rows("chats", streamed)),
        (*_costs("subtask", durable), *_costs("chat", streamed)),
        (_note("subtasks", durable), _note("chats", streamed)),
    )


def _rounds(
    servers: Servers,
    effort: Effort,
    model: Mapping[str, object],
    words: int,
    load: tuple[int, int],
    *,
    stream: bool,
) -> dict[str, _Watched]:
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(_watched(servers, _PLAIN, model, words, stream=stream))
        scraped = _Watched(plain.mill, plain.target, _pages(plain.mill))
        ways = {_PLAIN: plain, _SCRAPED: scraped} | {
            name: stack.enter_context(_watched(servers, name, model, words, stream=stream))
            for name in _TRACED
        }
        for way in ways.values():
            run(Order((way.target,), load[0], 2))
        for _ in range(effort.rounds):
            for way in ways.values():
                way.measure(*load)
    return ways


@contextlib.contextmanager
def _watched(
    servers: Servers, name: str, model: Mapping[str, object], words: int, *, stream: bool
) -> Generator[_Watched]:
    settings = {"MILLRACE_HEALTH_PORT": str(free_port())}
    if share := _TRACED.get(name):
        file = servers.folder / f"{servers.new_name('spans')}.jsonl"
        settings |= {"MILLRACE_TRACING": f"file:{file}", "MILLRACE_TRACING_SHARE": f"{share:g}"}
    with millrace(servers, model, settings=settings) as mill:
        pages = _pages(mill) if share else ()
        yield _Watched(mill, mill.target(words, {"stream": stream}), pages)


def _pages(mill: Millrace) -> tuple[str, ...]:
    ports = (mill.port, int(mill.environment["MILLRACE_HEALTH_PORT"]))
    return tuple(f"http://127.0.0.1:{port}/metrics" for port in ports)


@contextlib.contextmanager
def _scraping(pages: tuple[str, ...]) -> Generator[None]:
    """Read these pages once a second, from now on."""
    enough = threading.Event()

    def scrape() -> None:
        while True:
            for page in pages:
                request = urllib.request.Request(page, headers=_OPEN_METRICS)
                with urllib.request.urlopen(request, timeout=10) as answer:
                    answer.read()
            if enough.wait(_SCRAPE_SECONDS):
                return

    reader = threading.Thread(target=scrape)
    if pages:
        reader.start()
    try:
        yield
    finally:
        enough.set()
        if pages:
            reader.join()


def _rows(what: str, ways: Mapping[str, _Watched]) -> tuple[Row, ...]:
    plain = tuple(ways[_PLAIN].rates)
    return tuple(
        Row(
            *("O", f"{what}, {name}", "per s", tuple(way.rates), _PLAIN, plain),
            judged=ratios(way.rates, plain),
            limit=None if _TRACED.get(name) == 1 else _LIMIT,
        )
        for name, way in ways.items()
        if name != _PLAIN
    )


def _costs(row: str, ways: Mapping[str, _Watched]) -> tuple[Cost, ...]:
    return tuple(cost(row, name, way.spent) for name, way in ways.items())


def _note(what: str, ways: Mapping[str, _Watched]) -> str:
    rates = ", ".join(f"{statistics.median(way.rates):.0f}/s {name}" for name, way in ways.items())
    return f"{what}: {rates}"
