"""What is on each model's queue by the tables: what waits there, and what workers hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True)
class Depth:
    """Of one model."""

    queued: int = 0
    running: Mapping[str, int] = field(default_factory=dict)
    """By worker."""

    @property
    def messages(self) -> int:
        """Ready and unacknowledged, as the broker would count."""
        return self.queued + sum(self.running.values())


# What is in the outbox as well is not on the queue: the broker lost it, or it waits for room.
_DEPTHS = text("""
    SELECT s.model, CASE WHEN s.state = 'running' THEN s.worker END, count(*)
      FROM millrace.subtasks s
      LEFT JOIN millrace.outbox o ON o.subtask_id = s.id AND o.attempt = s.attempt
     WHERE s.finished_at IS NULL AND s.state IN ('queued', 'running')
       AND (s.state = 'running' OR o.id IS NULL)
     GROUP BY 1, 2
""")


async def depths(connection: AsyncConnection) -> dict[str, Depth]:
    """Of every model that has anything on its queue."""
    found: dict[str, Depth] = {}
    for model, worker, number in await connection.execute(_DEPTHS):
        before = found.get(model, Depth())
        if worker is None:
            found[model] = Depth(before.queued + number, before.running)
        else:
            found[model] = Depth(before.queued, {**before.running, worker: number})
    return found
