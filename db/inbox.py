"""The inbox of feedback that was given somewhere else, and the reports that n8n writes."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Text, cast, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.n8n_tables import NoteSource, NoteState, feedback_inbox


@dataclass(frozen=True)
class Note:
    """A note that waits, held until the transaction ends."""

    id: UUID
    source: NoteSource
    note: str
    """JSON of an object, which Postgres could read."""
    received_at: datetime


_COLUMNS = (
    feedback_inbox.c.id,
    feedback_inbox.c.source,
    cast(feedback_inbox.c.note, Text),
    feedback_inbox.c.received_at,
)


async def hold(connection: AsyncConnection, note: UUID) -> Note | None:
    """A waiting note; None if there is none, or another replica has it in hand."""
    query = (
        select(*_COLUMNS)
        .filter_by(id=note, state=NoteState.WAITING)
        .with_for_update(skip_locked=True)
    )
    row = (await connection.execute(query)).one_or_none()
    return Note(row[0], NoteSource(row[1]), *row[2:]) if row else None


async def is_known(connection: AsyncConnection, note: UUID) -> bool:
    """Whether there is or was such a note, in whatever state."""
    query = select(feedback_inbox.c.id).filter_by(id=note)
    return await connection.scalar(query) is not None


_WAITING = text("""
    SELECT id FROM millrace.feedback_inbox
     WHERE state = 'waiting' AND received_at < now() - make_interval(secs => :older)
       AND (CAST(:after AS uuid) IS NULL OR id > :after)
     ORDER BY id LIMIT :limit
""")


async def waiting(
    connection: AsyncConnection, *, older_seconds: float, after: UUID | None, limit: int
) -> list[UUID]:
    """Notes that have waited so long, by id, from the one after `after` on."""
    values = {"older": older_seconds, "after": after, "limit": limit}
    return list((await connection.execute(_WAITING, values)).scalars())


# The words are needed only as long as it waits; later the digest tells whether it says the same.
_SETTLE = text("""
    UPDATE millrace.feedback_inbox
       SET state = :state, tenant_id = :tenant, problem = CAST(:problem AS text),
           request_id = coalesce(:request, request_id),
           note = CASE WHEN :state = 'waiting' THEN note ELSE '{}' END,
           handled_at = CASE WHEN :state = 'waiting' THEN NULL ELSE now() END
     WHERE id = :note
""")


async def settle(
    connection: AsyncConnection,
    note: UUID,
    state: NoteState,
    *,
    tenant: UUID | None = None,
    request: UUID | None = None,
    problem: str | None = None,
) -> None:
    """Say what became of a note, and drop its words; `waiting` with a problem keeps them."""
    values = {
        "note": note,
        "state": state,
        "tenant": tenant,
        "request": request,
        "problem": problem,
    }
    await connection.execute(_SETTLE, values)


async def tenant_of(connection: AsyncConnection, request: UUID) -> UUID | None:
    """Whose request it is. For what came by a way that names no tenant."""
    query = text("SELECT tenant_id FROM millrace.requests WHERE id = :request")
    found: UUID | None = await connection.scalar(query, {"request": request})
    return found


@dataclass(frozen=True)
class Report:
    """What was written about a week of a tenant."""

    tenant: str
    starts_at: datetime
    ends_at: datetime
    text: str


_LATEST = text("""
    SELECT DISTINCT ON (t.name) t.name, r.starts_at, r.ends_at, r.text
      FROM millrace.reports r JOIN millrace.tenants t ON t.id = r.tenant_id
     WHERE CAST(:tenant AS text) IS NULL OR t.name = :tenant
     ORDER BY t.name, r.starts_at DESC
""")


async def latest_reports(connection: AsyncConnection, tenant: str | None = None) -> list[Report]:
    """The latest report of each tenant, or of one, by name."""
    return [Report(*row) for row in await connection.execute(_LATEST, {"tenant": tenant})]
