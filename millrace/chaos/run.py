"""One run: start an installation and its load, strike it as the seed says, see what held."""

import asyncio
import contextlib
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from millrace.chaos import evidence
from millrace.chaos.clients import Load
from millrace.chaos.evidence import Evidence, Glance, Letter, Memory, Queue
from millrace.chaos.faults import KINDS, Fault, schedule
from millrace.chaos.installation import MODEL, Installation, Size
from millrace.chaos.invariants import violations
from millrace.chaos.machine import NO_TLS, memory_bytes
from millrace.chaos.outcome import Options, Outcome, Struck
from queue_schemas import topology

QUIET_SECONDS = 60.0
"""Everything has to be at rest so long after the last fault."""
_WATCH_SECONDS = 0.5
_UNAVAILABLE = 503
_AWAY = (httpx2.HTTPError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What is raised while a server is away."""

_UNDONE = """
    SELECT (SELECT count(*) FROM millrace.requests WHERE finished_at IS NULL)
         + (SELECT count(*) FROM millrace.outbox)
"""
"""Also rows of the outbox: an answer may come before it is noted that its question was sent."""

Show = Callable[[float, Outcome], None]
"""Tells somebody how far the run is: elapsed seconds and what is known by now."""


async def run(options: Options, folder: Path, stop: asyncio.Event, show: Show) -> Outcome:
    """Do one run; `stop` ends the faults early. Raises `Unavailable` where a server is missing."""
    outcome = Outcome(options, folder)
    size = Size(options.masters, options.workers)
    async with Installation.started(folder, options.seed, size) as site:
        await _Run(site, outcome, show).carry_out(stop)
    return outcome


class _Run:
    """What is at hand during one run."""

    def __init__(self, site: Installation, outcome: Outcome, show: Show) -> None:
        self._site = site
        self._outcome = outcome
        self._options = outcome.options
        self._show = show
        self._load = Load(site.urls, site.stack.key, MODEL, self._options.seed)
        self._began = time.monotonic()
        self._active = 0
        self._storm_at = self._began
        self._memory: dict[str, Memory] = {}
        self._queues_last: list[Queue] = []
        self._outcome.evidence = Evidence(visits=self._load.visits)
        site.drop_clients = self._load.leave

    async def carry_out(self, stop: asyncio.Event) -> None:
        """Load, faults, rest, verdict."""
        await self._in_database(lambda connection: connection.execute(evidence.JOURNAL))
        watching = asyncio.create_task(self._watch())
        loading = asyncio.create_task(self._load.run(self._options.clients))
        try:
            await self._strike_all(stop)
            self._load.stop()
            await self._rest(loading)
            if watching.done():
                watching.result()  # nobody looked on: no verdict without that
            await self._judge()
        finally:
            for task in (watching, loading):
                task.cancel()
            await asyncio.gather(watching, loading, return_exceptions=True)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    # --- faults ----------------------------------------------------------------------------------

    async def _strike_all(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as strikes:
            for fault in schedule(self._options.seed, self._options.seconds, self._options.kinds):
                if await self._stopped(stop, fault.at):
                    break
                strikes.create_task(self._strike(fault))
            await self._stopped(stop, self._options.seconds)
        self._outcome.interrupted = stop.is_set()

    async def _stopped(self, stop: asyncio.Event, at: float) -> bool:
        """Wait until that time of the run, or until it is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, at - self._elapsed)):
                await stop.wait()
        return stop.is_set()

    async def _strike(self, fault: Fault) -> None:
        self._active += 1
        at = self._elapsed
        try:
            async with KINDS[fault.kind].strike(self._site, random.Random(fault.dice)) as what:
                self._outcome.struck.append(Struck(round(at, 1), fault.kind, what, fault.seconds))
                await asyncio.sleep(fault.seconds)
        except (*_AWAY, subprocess.SubprocessError) as error:
            self._outcome.failed.append(f"{fault.kind}: {error!r}")
        finally:
            self._active -= 1
            self._storm_at = time.monotonic()
        await self._look()

    # --- looking on ------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            if self._active or not await self._site.healthy():
                self._storm_at = time.monotonic()
            self._measure()
            self._show(self._elapsed, self._outcome)
            await asyncio.sleep(_WATCH_SECONDS)

    def _measure(self) -> None:
        """The memory of masters; the first measure is of one that has been seen ready."""
        calm = time.monotonic() - self._storm_at > _WATCH_SECONDS
        for master in self._site.able(masters=True):
            name, now = master.log.name, memory_bytes(master.popen.pid)
            known = self._memory.get(name)
            if now is not None and (known or calm):
                known = known or Memory(name, now, now)
                self._memory[name] = Memory(name, known.first, max(known.most, now))

    async def _look(self) -> None:
        """Check what can be checked while the load runs."""
        seen = self._evidence()
        with contextlib.suppress(*_AWAY):
            await self._in_database(lambda connection: evidence.look(connection, seen))
            self._outcome.note(violations(seen), self._elapsed)

    def _evidence(self) -> Evidence:
        return Evidence(
            visits=self._load.visits,
            killed=self._site.journal.killed,
            deaths=self._site.journal.deaths,
            memory=list(self._memory.values()),
            calm_seconds=time.monotonic() - self._storm_at,
        )

    async def _in_database(self, do: Callable[[asyncpg.Connection], Any]) -> Any:
        """On a direct connection: no fault of the network is to disturb the view."""
        connection = await asyncpg.connect(self._site.database.url(), timeout=60)
        try:
            return await do(connection)
        finally:
            await connection.close()

    # --- the end ---------------------------------------------------------------------------------

    async def _rest(self, loading: asyncio.Task[None]) -> None:
        """Wait until every client has its answer and everything is at rest, or the time is over."""
        began = time.monotonic()
        await asyncio.wait({loading}, timeout=QUIET_SECONDS)
        if loading.done():
            loading.result()
        while time.monotonic() - began < QUIET_SECONDS:
            with contextlib.suppress(*_AWAY):
                if await self._at_rest():
                    self._outcome.quiet_seconds = round(time.monotonic() - began, 1)
                    return
            await asyncio.sleep(_WATCH_SECONDS)

    async def _at_rest(self) -> bool:
        if not await self._site.healthy():
            return False
        if await self._in_database(lambda connection: connection.fetchval(_UNDONE)):
            return False
        self._queues_last = await self._queues()
        return not any(
            q.messages or q.wanted_consumers not in {None, q.consumers} for q in self._queues_last
        )

    async def _queues(self) -> list[Queue]:
        found = await self._site.queues()
        masters, workers = self._options.masters, self._options.workers
        wanted = {
            topology.subtasks(MODEL).name: workers,
            topology.RESULTS.name: masters,
            topology.WORKERS.name: masters,
        }
        ended = {topology.DEAD.name, topology.QUARANTINE.name}
        names = (wanted.keys() | found.keys()) - ended
        return [
            Queue(
                name,
                found.get(name, {}).get("messages", 0),
                found.get(name, {}).get("consumers", 0),
                wanted.get(name),
            )
            for name in sorted(names)
        ]

    async def _judge(self) -> None:
        seen = self._evidence()
        seen.final = True
        await self._in_database(lambda connection: evidence.look(connection, seen))
        await self._in_database(lambda connection: evidence.read_tables(connection, seen))
        # Not read again: a worker's heartbeat lies in a queue at any moment, also at rest.
        seen.queues = self._queues_last or await self._queues()
        seen.letters = [_letter(m) for m in await self._site.letters(topology.DEAD.name)]
        seen.quarantined = len(await self._site.letters(topology.QUARANTINE.name))
        seen.glances = await self._glances(list(seen.requests))
        self._outcome.evidence = seen
        self._outcome.restarts = self._site.journal.restarts
        self._outcome.note(violations(seen), self._elapsed)

    async def _glances(self, requests: list[str]) -> list[Glance]:
        """Another tenant asks for every request; the owner asks for one, to compare."""
        base, own = self._site.urls[0], self._site.stack.key
        paths = [f"/v1/requests/{request}" for request in requests]
        paths += [f"/v1/responses/resp_{request.replace('-', '')}" for request in requests]
        async with httpx2.AsyncClient(
            base_url=base, timeout=30, trust_env=False, verify=NO_TLS
        ) as http:

            async def glance(path: str, key: str) -> Glance:
                end = time.monotonic() + QUIET_SECONDS
                while True:
                    is_over = time.monotonic() >= end
                    try:
                        answer = await http.get(path, headers={"Authorization": f"Bearer {key}"})
                    except httpx2.TransportError:
                        if is_over:
                            raise
                    else:
                        # A master that cannot answer now neither shows nor hides anything.
                        if answer.status_code != _UNAVAILABLE or is_over:
                            return Glance(path, answer.status_code, key == own)
                    await asyncio.sleep(_WATCH_SECONDS)

            glances = [await glance(path, own) for path in paths[:1]]
            return glances + [await glance(path, self._site.other_key) for path in paths]


def _letter(message: dict[str, Any]) -> Letter:
    try:
        carried = json.loads(message["payload"])
        return Letter(carried.get("subtask"), carried.get("attempt", 0))
    except (ValueError, AttributeError):
        return Letter(None)
