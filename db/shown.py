"""What a client had seen of a text when another execution began to say it again.

The replica that streams a request notes it; so whoever collects the result knows what it must not
contradict. First executions, nearly all, contradict nobody and cost nothing here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import subtasks
from queue_schemas.messages import Started

# Another replica may have taken the stream over since, and its client has seen other things.
# Shown text only grows: it stays in the next attempt, which goes on from it.
_NOTE = text("""
    UPDATE millrace.subtasks s
       SET followed = :execution,
           shown = CASE WHEN starts_with(CAST(:shown AS text), s.shown) THEN CAST(:shown AS text)
                        ELSE s.shown END
      FROM millrace.requests q
     WHERE s.id = :subtask AND s.attempt = :attempt AND s.finished_at IS NULL
       AND q.id = s.request_id AND q.reply_to = :queue
""")


async def note(connection: AsyncConnection, later: Started, shown: str, queue: str) -> None:
    """From now on the stream on this tokens queue follows a later execution, after this text."""
    values = {
        "subtask": later.subtask,
        "attempt": later.attempt,
        "execution": later.execution,
        "shown": shown,
        "queue": queue,
    }
    await connection.execute(_NOTE, values)


@dataclass(frozen=True)
class Seen:
    """What is known of the client of an open subtask."""

    attempt: int
    shown: str
    followed: UUID | None


async def seen(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Seen]:
    """What was noted of these subtasks; those that ended are left out."""
    query = select(subtasks.c.id, subtasks.c.attempt, subtasks.c.shown, subtasks.c.followed).where(
        subtasks.c.id.in_(ids), subtasks.c.finished_at.is_(None)
    )
    return {
        row.id: Seen(row.attempt, row.shown, row.followed)
        for row in await connection.execute(query)
    }
