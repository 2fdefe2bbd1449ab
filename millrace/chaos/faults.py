"""What can go wrong, in one table: how each fault begins and ends, and how often it comes.

A fault is a context manager: entering injects it, leaving heals it. When which one comes is a pure
function of the seed.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from millrace.chaos.installation import Installation
from millrace.chaos.moody_engine import Mood
from millrace.chaos.stack import Process
from millrace.chaos.tcp_proxy import TcpProxy

Strike = Callable[[Installation, random.Random], contextlib.AbstractAsyncContextManager[str]]
"""Injects a fault for as long as it is entered; gives what was hit."""

FIRST_SECONDS: Final = 2.0
"""The load runs undisturbed for so long."""
GAP_SECONDS: Final = (0.4, 4.0)
BROKER_OUTAGES: Final = frozenset({"broker-kill", "broker-restart", "broker-memory"})
BROKER_REST_SECONDS: Final = 20.0
MOMENT: Final = (0.0, 0.0)
NOTHING: Final = "nothing"
"""What a fault has hit that found no victim."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    strike: Strike
    weight: int
    """How often it comes in each round of the schedule."""
    seconds: tuple[float, float]
    """How long it lasts, at least and at most."""


@dataclass(frozen=True)
class Fault:
    """One entry of a schedule."""

    kind: str
    at: float
    """Seconds after the start of the load."""
    seconds: float
    dice: int
    """Decides who is hit."""


def schedule(seed: int, seconds: float, kinds: Iterable[str]) -> tuple[Fault, ...]:
    """The faults of a run. Every kind comes in every round; the order is the seed's."""
    dice = random.Random(seed)
    queue = _Queue(sorted(kinds), dice)
    faults: list[Fault] = []
    at = FIRST_SECONDS
    while True:
        at, kind = queue.next(at)
        lasts = dice.uniform(*KINDS[kind].seconds)
        if at + lasts > seconds:
            return tuple(faults)
        faults.append(Fault(kind, at, lasts, dice.getrandbits(32)))
        at += dice.uniform(*GAP_SECONDS)


class _Queue:
    """The kinds to come: shuffled rounds, in which outages of the broker keep their distance.

    It takes seconds to boot; one outage after the other would be a single long one.
    """

    def __init__(self, kinds: list[str], dice: random.Random) -> None:
        self._round = [kind for kind in kinds for _ in range(KINDS[kind].weight)]
        self._dice = dice
        self._coming: list[str] = []
        self._outage_at = -BROKER_REST_SECONDS

    def next(self, at: float) -> tuple[float, str]:
        """The next kind, and when it may come: at that time, or a while later."""
        if not self._coming:
            self._coming = self._dice.sample(self._round, len(self._round))
        free = [kind for kind in self._coming if self._may(kind, at)]
        if not free:
            at, free = self._outage_at + BROKER_REST_SECONDS, self._coming
        kind = free[0]
        self._coming.remove(kind)
        if kind in BROKER_OUTAGES:
            self._outage_at = at
        return at, kind

    def _may(self, kind: str, at: float) -> bool:
        return kind not in BROKER_OUTAGES or at - self._outage_at >= BROKER_REST_SECONDS


# --- processes -----------------------------------------------------------------------------------


def _end(how: Callable[[Installation, Process], None], masters: bool) -> Strike:
    @contextlib.asynccontextmanager
    async def strike(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
        victim = _victim(site, dice, masters)
        if victim is not None:
            how(site, victim)
        yield _name(victim)

    return strike


def _freeze(masters: bool) -> Strike:
    @contextlib.asynccontextmanager
    async def strike(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
        victim = _victim(site, dice, masters)
        if victim is None:
            yield NOTHING
            return
        with site.frozen(victim):
            yield victim.name

    return strike


def _victim(site: Installation, dice: random.Random, masters: bool) -> Process | None:
    able = site.able(masters=masters)
    return dice.choice(able) if able else None


def _name(victim: Process | None) -> str:
    return victim.name if victim else NOTHING


# --- the broker ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _kill_broker(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    async with site.broker_taken():
        await asyncio.to_thread(site.broker.kill)
        try:
            yield "SIGKILL"
        finally:
            await site.start_broker()


@contextlib.asynccontextmanager
async def _restart_broker(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    async with site.broker_taken():
        await asyncio.to_thread(site.broker.stop)
        try:
            yield "shut down in order"
        finally:
            await site.start_broker()


@contextlib.asynccontextmanager
async def _memory_alarm(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    async with site.broker_taken():
        await asyncio.to_thread(site.set_memory_limit, "0.00001")
        try:
            yield "publishers are blocked"
        finally:
            await asyncio.to_thread(site.set_memory_limit, "0.4")


@contextlib.asynccontextmanager
async def _delete_connection(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    async with site.broker_taken():
        yield await site.delete_connection(dice) or NOTHING


@contextlib.asynccontextmanager
async def _delete_queue(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    async with site.broker_taken():
        yield await site.delete_queue(dice)


# --- the database --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _end_sessions(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    async with site.database_taken():
        yield f"{await site.end_sessions(dice)} sessions"


def _stop_database(how: str) -> Strike:
    @contextlib.asynccontextmanager
    async def strike(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
        async with site.database_taken():
            stop = {"kill": site.database.kill, "restart": site.database.stop}[how]
            await asyncio.to_thread(stop)
            try:
                yield how
            finally:
                await asyncio.to_thread(site.database.start)

    return strike


# --- the network ---------------------------------------------------------------------------------


def _network(way: str, harm: Callable[[TcpProxy, random.Random], None]) -> Strike:
    """Harm one way: `broker` is that of the workers or that of the masters."""

    @contextlib.asynccontextmanager
    async def strike(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
        names = [name for name in site.ways if name.endswith(way)]
        name = dice.choice(names)
        async with site.way_taken(name) as proxy:
            harm(proxy, dice)
            try:
                yield name
            finally:
                proxy.release()

    return strike


def _cut(proxy: TcpProxy, dice: random.Random) -> None:
    proxy.cut()


def _swallow(proxy: TcpProxy, dice: random.Random) -> None:
    dice.choice((proxy.hold, proxy.hold_replies))()


def _delay(proxy: TcpProxy, dice: random.Random) -> None:
    proxy.delay(dice.uniform(0.05, 0.4))


# --- clients and engines -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _clients_leave(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
    yield f"{site.drop_clients(dice)} clients"


def _engine(mood: Mood) -> Strike:
    @contextlib.asynccontextmanager
    async def strike(site: Installation, dice: random.Random) -> AsyncGenerator[str, None]:
        async with site.engine_taken():
            site.engine.mood = mood
            try:
                yield mood.value
            finally:
                site.engine.mood = None

    return strike


KINDS: Final[Mapping[str, Kind]] = {
    "worker-kill": Kind(_end(Installation.kill, masters=False), 4, MOMENT),
    "worker-freeze": Kind(_freeze(masters=False), 3, (1.0, 8.0)),
    "worker-terminate": Kind(_end(Installation.terminate, masters=False), 2, MOMENT),
    "master-kill": Kind(_end(Installation.kill, masters=True), 3, MOMENT),
    "master-freeze": Kind(_freeze(masters=True), 2, (1.0, 8.0)),
    "master-terminate": Kind(_end(Installation.terminate, masters=True), 2, MOMENT),
    "broker-kill": Kind(_kill_broker, 1, (0.0, 3.0)),
    "broker-restart": Kind(_restart_broker, 1, (0.0, 3.0)),
    "broker-memory": Kind(_memory_alarm, 1, (1.0, 4.0)),
    "connection-delete": Kind(_delete_connection, 2, MOMENT),
    "queue-delete": Kind(_delete_queue, 2, MOMENT),
    "database-sessions": Kind(_end_sessions, 2, MOMENT),
    "database-kill": Kind(_stop_database("kill"), 1, (0.0, 3.0)),
    "database-restart": Kind(_stop_database("restart"), 1, (0.0, 3.0)),
    "broker-cut": Kind(_network("broker", _cut), 2, MOMENT),
    "broker-silence": Kind(_network("broker", _swallow), 2, (1.0, 10.0)),
    "broker-delay": Kind(_network("broker", _delay), 2, (2.0, 6.0)),
    "database-cut": Kind(_network("database", _cut), 2, MOMENT),
    "database-silence": Kind(_network("database", _swallow), 1, (1.0, 8.0)),
    "database-delay": Kind(_network("database", _delay), 1, (2.0, 6.0)),
    "client-leave": Kind(_clients_leave, 2, MOMENT),
    "engine-503": Kind(_engine(Mood.BUSY), 2, (1.0, 4.0)),
    "engine-hang": Kind(_engine(Mood.HANG), 1, (0.5, 2.0)),
    "engine-cut": Kind(_engine(Mood.CUT), 2, (1.0, 3.0)),
    "engine-garbage": Kind(_engine(Mood.GARBAGE), 1, (1.0, 3.0)),
}
