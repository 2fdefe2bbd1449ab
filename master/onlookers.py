"""Results of later executions of requests whose clients another replica serves.

Such a text may contradict what its client saw of an earlier execution, and only the replica that
streams knows that. It notes it in the database when it hears of the later execution; a result that
is here before that note waits for it, as long as the replica may be thought to live.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.protocol import Bus
from db import shown
from db.requests import LockedRequest
from queue_schemas.codec import KeyRing, encode
from queue_schemas.messages import Completed, Failed, Started
from queue_schemas.states import REQUEST_TERMINAL

Result = Completed | Failed

PATIENCE_SECONDS = 1.0
_REMEMBERED = 10_000


def is_later(one: Started | Result) -> bool:
    """Whether an execution says again what another one may have said before."""
    return one.delivery > 0 or one.attempt > 1


@dataclass(frozen=True)
class Sights:
    """What clients elsewhere have seen."""

    shown: Mapping[UUID, str] = field(default_factory=dict)
    """By subtask."""
    early: Mapping[UUID, str] = field(default_factory=dict)
    """Executions whose results must wait, with the tokens queue of the replica to ask."""


class Onlookers:
    """What this replica waits for."""

    def __init__(self, queue: str, bus: Bus, key: KeyRing | None) -> None:
        self._queue = queue
        self._bus = bus
        self._key = key
        self._since: dict[UUID, float] = {}

    async def look(
        self,
        connection: AsyncConnection,
        results: Sequence[Result],
        locked: Mapping[UUID, LockedRequest],
    ) -> Sights:
        """What is known of the clients of these results, whose requests are locked."""
        elsewhere = {
            result.execution: (result, queue)
            for result in results
            if is_later(result) and (queue := self._other(locked.get(result.request)))
        }
        if not elsewhere:
            return Sights()
        seen = await shown.seen(connection, [result.subtask for result, _ in elsewhere.values()])
        early = {
            execution: queue
            for execution, (result, queue) in elsewhere.items()
            if (at := seen.get(result.subtask))
            and at.attempt == result.attempt
            and at.followed != execution
            and self._is_patient(execution)
        }
        return Sights({id_: at.shown for id_, at in seen.items() if at.shown}, early)

    def _other(self, request: LockedRequest | None) -> str | None:
        """The tokens queue of the replica that streams an open request, if it is another one."""
        if request is None or request.state in REQUEST_TERMINAL:
            return None
        return request.reply_to if request.reply_to != self._queue else None

    def _is_patient(self, execution: UUID) -> bool:
        now = time.monotonic()
        if len(self._since) > _REMEMBERED:
            self._since.clear()
        return now - self._since.setdefault(execution, now) < PATIENCE_SECONDS

    async def ask(self, result: Result, queue: str) -> None:
        """Have the replica note what its client has seen; it may have missed the Started."""
        started = Started(
            request=result.request,
            subtask=result.subtask,
            attempt=result.attempt,
            execution=result.execution,
            delivery=result.delivery,
            worker=result.worker,
        )
        await self._bus.stream(queue, *encode(started, self._key))
