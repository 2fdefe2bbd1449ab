"""Collect: takes what workers report, writes it once, and tells those whom it concerns.

Results, claims and heartbeats come in batches; each batch is one transaction, and a message is
acknowledged only after its commit. Everything here may run on any replica, and twice.
"""

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus, Consumer, Delivery, quarantine
from db import requests, subtasks, workers
from master.announce import announce, broadcast, notify
from master.apply import Applied, Limits, Result, apply
from master.batches import Batches
from master.dispatch import Dispatcher
from master.fleet import FleetView
from master.planning.plan import StepKind
from master.settings import MasterSettings
from master.streams import Streams
from queue_schemas import topology
from queue_schemas.codec import UnreadableMessage, decode
from queue_schemas.messages import (
    RESULT,
    WORKER,
    Cancel,
    Heartbeat,
    Started,
)
from queue_schemas.states import RequestState

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PREFETCH = 500


@dataclass(frozen=True)
class Received(Generic[T]):
    """A message with the delivery that is acknowledged once it is written."""

    delivery: Delivery
    message: T


class Collector:
    """The consumers of `results` and `workers` on one replica."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: Bus,
        view: FleetView,
        dispatcher: Dispatcher,
        streams: Streams,
        settings: MasterSettings,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._view = view
        self._dispatcher = dispatcher
        self._streams = streams
        self._lease_seconds = settings.lease_seconds
        self._limits = Limits(settings.max_attempts, settings.max_losses)
        self._key = settings.signing_key
        self._results: Batches[Received[Result]] = Batches(
            "results", self._write_results, _give_back
        )
        self._reports: Batches[Received[Started | Heartbeat]] = Batches(
            "workers", self._write_reports, _give_back
        )

    async def run(self) -> None:
        """Consume until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._results.run())
            tasks.create_task(self._reports.run())
            consumers = [
                await self._consume(topology.RESULTS, RESULT, self._results),
                await self._consume(topology.WORKERS, WORKER, self._reports),
            ]
            try:
                await asyncio.Event().wait()
            finally:
                for consumer in consumers:
                    await consumer.cancel()

    async def _consume(
        self, queue: topology.Queue, adapter: TypeAdapter[T], batches: Batches[Received[T]]
    ) -> Consumer:
        async def receive(delivery: Delivery) -> None:
            try:
                message = decode(adapter, delivery.body, delivery.headers, self._key)
            except UnreadableMessage as error:
                log.warning("collect.unreadable", queue=queue.name, reason=str(error))
                await quarantine(self._bus, delivery, str(error))
            else:
                batches.put(Received(delivery, message))

        return await self._bus.consume(queue, receive, prefetch=_PREFETCH)

    async def _write_results(self, batch: list[Received[Result]]) -> None:
        results = [received.message for received in batch]
        async with self._engine.begin() as connection:
            applied = await apply(connection, results, self._view, self._limits)
        await _acknowledge(batch)
        if late := [r for r in results if r.execution not in applied.counted]:
            log.info("collect.late", executions=[str(r.execution) for r in late])
        self._streams.take_results([r for r in results if r.execution in applied.counted])
        await tell(applied, self._bus, self._streams, self._dispatcher, self._key)

    async def _write_reports(self, batch: list[Received[Started | Heartbeat]]) -> None:
        starts = _newest(
            [received.message for received in batch if isinstance(received.message, Started)]
        )
        beats = {
            received.message.worker: received.message
            for received in batch
            if isinstance(received.message, Heartbeat)
        }
        in_vain: list[Started] = []
        async with self._engine.begin() as connection:
            if starts:
                claimed = await subtasks.claim(connection, starts, self._lease_seconds)
                planning = {request for _, request, kind in claimed if kind == StepKind.PLAN}
                running = {request for _, request, _ in claimed} - planning
                await requests.begin(connection, sorted(planning), RequestState.PLANNING)
                await requests.begin(connection, sorted(running), RequestState.RUNNING)
                refused = {start.subtask for start in starts} - {row[0] for row in claimed}
                if refused:
                    in_vain = await subtasks.outrun(
                        connection, [start for start in starts if start.subtask in refused]
                    )
            if beats:
                await workers.see(connection, list(beats.values()))
                lines = [line for beat in beats.values() for line in beat.running]
                if lines:
                    await subtasks.renew(connection, lines, self._lease_seconds)
        await _acknowledge(batch)
        for start in in_vain:
            await broadcast(
                self._bus, Cancel(subtasks=(start.subtask,), execution=start.execution), self._key
            )


def _newest(starts: list[Started]) -> list[Started]:
    """One claim a subtask: the latest delivery of the latest attempt."""
    ordered = sorted(starts, key=lambda start: (start.attempt, start.delivery))
    return list({start.subtask: start for start in ordered}.values())


async def _acknowledge(batch: list[Received[T]]) -> None:
    await asyncio.gather(*(received.delivery.ack() for received in batch))


async def _give_back(received: Received[T]) -> None:
    """The batch's writer refuses this one; the delivery limit sends it to `dead` in the end."""
    await received.delivery.retry()


async def tell(
    applied: Applied, bus: Bus, streams: Streams, dispatcher: Dispatcher, key: bytes | None
) -> None:
    """After the commit: wake the dispatcher, the streams and the watchers."""
    if applied.ready:
        dispatcher.nudge()
    for request, step in applied.progress.items():
        locked = applied.requests[request]
        if streams.has(request):
            if step.ended:
                streams.end(request, step.ended)
            else:
                streams.refresh_soon(request)
        elif locked.reply_to:
            await notify(bus, locked.reply_to, request, key)
        if step.ended:
            await announce(
                bus, f"request.{step.ended.state}", tenant=locked.tenant, request=request
            )
