"""Workers as their heartbeats describe them, and what can be known of the fleet from the tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_schemas.messages import Heartbeat

_SEEN = text("""
    INSERT INTO millrace.workers AS w
           (name, model, provider, slots, running, host, pid, release, draining, stopped_at)
    VALUES (:name, :model, :provider, :slots, :running, :host, :pid, :release, :draining,
            CASE WHEN :stopped THEN now() END)
    ON CONFLICT (name) DO UPDATE
       SET model = excluded.model, provider = excluded.provider, slots = excluded.slots,
           running = excluded.running, host = excluded.host, pid = excluded.pid,
           release = excluded.release, draining = excluded.draining,
           stopped_at = excluded.stopped_at, last_seen_at = now()
""")


async def see(connection: AsyncConnection, beats: Sequence[Heartbeat]) -> None:
    """Store what the heartbeats say."""
    rows = [
        {
            **beat.model_dump(
                include={"model", "provider", "slots", "host", "pid", "release", "draining"}
            ),
            "name": beat.worker,
            "running": len(beat.running),
            "stopped": beat.stopped,
        }
        for beat in sorted(beats, key=lambda beat: beat.worker)  # two replicas, one order of locks
    ]
    await connection.execute(_SEEN, rows)


_LIVE = text("""
    SELECT name, model, provider, slots, running, host, pid, release, draining,
           extract(epoch FROM now() - started_at)::float8 AS up_seconds,
           greatest(0, extract(epoch FROM clock_timestamp() - last_seen_at))::float8
               AS last_seen_seconds
      FROM millrace.workers
     WHERE stopped_at IS NULL AND last_seen_at > now() - make_interval(secs => :within)
     ORDER BY model, name
""")


async def live(connection: AsyncConnection, within_seconds: float) -> list[dict[str, Any]]:
    """Workers heard of lately that have not said goodbye."""
    rows = await connection.execute(_LIVE, {"within": within_seconds})
    return [dict(row) for row in rows.mappings()]


@dataclass(frozen=True)
class ModelLoad:
    """What the tables say about one model."""

    ready: int = 0
    delayed: int = 0
    """To be tried again, but not yet: after a pause that its engine or the retry budget wants."""
    queued: int = 0
    running: int = 0
    waiting: int = 0
    """Outbox rows that nobody has taken to publish yet."""
    blocked: int = 0
    """Those that wait for others of their request."""
    oldest_seconds: float = field(default=0.0, compare=False)
    """How long the one has waited that waits longest, published or not."""
    unpublished_seconds: float = field(default=0.0, compare=False)
    """The same of those that are still to be published, or to be published again."""
    tokens_per_second: float | None = None
    seconds_per_subtask: float | None = None
    """Engine time of an answer, on average of the last minutes."""


# What the broker lost is queued and in the outbox again. It takes no place on the queue; counted
# as if it did, it would fill the window and never be published. What waits for its time, say an
# engine's Retry-After, does not wait for anybody here: nobody is to publish it yet.
_LOADS = text("""
    WITH waiting AS (
        SELECT model, count(*) AS number FROM millrace.outbox
         WHERE available_at <= now() GROUP BY model
    )
    SELECT s.model,
           count(*) FILTER (WHERE (s.state = 'ready' AND s.ready_at <= now())
                               OR (s.state = 'queued' AND o.id IS NOT NULL)),
           count(*) FILTER (WHERE s.state = 'ready' AND s.ready_at > now()),
           count(*) FILTER (WHERE s.state = 'queued' AND o.id IS NULL),
           count(*) FILTER (WHERE s.state = 'running'), coalesce(max(w.number), 0),
           count(*) FILTER (WHERE s.state = 'blocked'),
           coalesce(extract(epoch FROM now() - min(s.ready_at)
                    FILTER (WHERE s.state IN ('ready', 'queued') AND s.ready_at <= now())),
                    0)::float8,
           coalesce(extract(epoch FROM now() - min(greatest(o.created_at, s.ready_at))
                    FILTER (WHERE s.state IN ('ready', 'queued') AND s.ready_at <= now()
                              AND o.id IS NOT NULL)), 0)::float8
      FROM millrace.subtasks s LEFT JOIN waiting w ON w.model = s.model
      LEFT JOIN millrace.outbox o ON o.subtask_id = s.id AND o.attempt = s.attempt
     WHERE s.finished_at IS NULL GROUP BY s.model
""")
# Ten minutes and at least a few tokens: one lucky answer of two words is no rate.
_RATES = text("""
    SELECT model, sum(completion_tokens) / nullif(sum(engine_seconds - load_seconds), 0),
           avg(engine_seconds)
      FROM millrace.attempts
     WHERE finished_at > now() - interval '10 minutes' AND outcome = 'completed'
     GROUP BY model HAVING sum(completion_tokens) >= 64
""")
# Refused is only what somebody still tries to publish: a row that the broker refused once and that
# now waits for room on its queue, or for a model, says nothing of the broker.
_OUTBOX = text("""
    SELECT count(*),
           coalesce(extract(epoch FROM now() - min(refused_at)
                    FILTER (WHERE available_at > now() - interval '30 seconds')), 0)::float8
      FROM millrace.outbox
""")


async def loads(connection: AsyncConnection) -> dict[str, ModelLoad]:
    """Backlog and measured completion rate by model."""
    rates = {row[0]: row[1:] for row in await connection.execute(_RATES)}
    loads = {row[0]: ModelLoad(*row[1:]) for row in await connection.execute(_LOADS)}
    for model, (rate, seconds) in rates.items():
        loads[model] = replace(
            loads.get(model, ModelLoad()), tokens_per_second=rate, seconds_per_subtask=seconds
        )
    return loads


@dataclass(frozen=True)
class OutboxLoad:
    """What waits to be published, or for its confirm to be noted."""

    rows: int = 0
    unpublishable_seconds: float = 0.0
    """How long the broker has been refusing the row that it refused first."""


async def outbox_load(connection: AsyncConnection) -> OutboxLoad:
    """How much is in the outbox, and for how long the broker has not taken it."""
    return OutboxLoad(*(await connection.execute(_OUTBOX)).one())


_MODELS_OF = text("SELECT name, model FROM millrace.workers WHERE name = ANY(:names)")


async def models_of(connection: AsyncConnection, names: Sequence[str]) -> dict[str, str]:
    """The model that each of these workers serves or served."""
    rows = await connection.execute(_MODELS_OF, {"names": list(names)})
    return {row[0]: row[1] for row in rows}
