"""Taking a stream over: what a replica reads and writes to stream a request of another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db import requests, subtasks
from db.requests import StoredRequest
from master import ending
from master.ending import Ending
from master.planning.plan import Plan, read_plan
from queue_schemas.states import RequestState, SubtaskState


@dataclass(frozen=True)
class Snapshot:
    """A request as one transaction saw it, after which no part of it moves unnoticed."""

    stored: StoredRequest
    """`reply_to` is the queue of whoever streamed it before."""
    rows: Sequence[Mapping[str, Any]]
    ending: Ending | None

    @property
    def plan(self) -> Plan:
        """Its plan. Raises PlanUnreadable."""
        return read_plan(self.stored.plan)

    @property
    def steps(self) -> dict[UUID, str]:
        """The step of each subtask."""
        return {row["id"]: row["step"] for row in self.rows}

    @property
    def running(self) -> list[UUID]:
        """The subtasks that some worker executes now."""
        return [row["id"] for row in self.rows if row["state"] == SubtaskState.RUNNING]

    @property
    def has_texts(self) -> bool:
        """Whether the parts' texts make an answer; a request that failed shows no more of them."""
        return self.ending is None or self.ending.state is RequestState.COMPLETED


async def take_over(engine: AsyncEngine, request: UUID, queue: str) -> Snapshot | None:
    """Have an open request's tokens come to this queue from now on; None if it is gone.

    Whoever claims or ends a subtask holds the request row too, so each either is in the snapshot
    or sees the new queue.
    """
    async with engine.begin() as connection:
        if not await requests.lock(connection, [request]):
            return None
        stored = (await requests.load(connection, [request]))[request]
        rows = await subtasks.details(connection, request)
        how = await ending.load(connection, request)
        if how is None and stored.reply_to != queue:
            await requests.adopt(connection, request, queue)
    return Snapshot(stored, rows, how)
