"""Judgements: what people, judges and clients made of answers. One a rater, and changeable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, RowMapping, literal_column, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import JudgementKind, JudgementSource, judgements


@dataclass(frozen=True)
class NewJudgement:
    """What somebody says of an answer, or of one step of it."""

    kind: JudgementKind
    rater: str
    """`user:<id>` of a person, `step:<key>` of a judge, or `system`."""
    source: JudgementSource
    subject: str = ""
    """Key of the step that is judged; empty: the answer as a whole."""
    subtask: UUID | None = None
    """That of the subject."""
    score: float | None = None
    """0 to 1."""
    rating: Mapping[str, Any] = field(default_factory=dict)
    """As it was given: thumb, stars, scores, passed."""
    reason: str | None = None
    comment: str | None = None
    correction: str | None = None


@dataclass(frozen=True)
class StoredJudgement:
    """A judgement as the database has it."""

    id: UUID
    request: UUID
    subtask: UUID | None
    kind: JudgementKind
    rater: str
    subject: str
    score: float | None
    rating: Mapping[str, Any]
    reason: str | None
    comment: str | None
    correction: str | None
    source: JudgementSource
    created_at: datetime
    updated_at: datetime


_COLUMNS = (
    judgements.c.id,
    judgements.c.request_id.label("request"),
    judgements.c.subtask_id.label("subtask"),
    judgements.c.kind,
    judgements.c.rater,
    judgements.c.subject,
    judgements.c.score,
    judgements.c.rating,
    judgements.c.reason,
    judgements.c.comment,
    judgements.c.correction,
    judgements.c.source,
    judgements.c.created_at,
    judgements.c.updated_at,
)
_SAID = ("score", "rating", "reason", "comment", "correction", "source")
_KEY = ("request_id", "kind", "rater", "subject")

_OLD, _NEW = (", ".join(f"{t}.{name}" for name in _SAID) for t in ("judgements", "excluded"))
# Saying the same again is no change.
_UPDATED_AT: Any = literal_column(
    f"CASE WHEN ({_OLD}) IS DISTINCT FROM ({_NEW}) THEN now() ELSE judgements.updated_at END"
)


async def put(
    connection: AsyncConnection, tenant: UUID, request: UUID, said: Sequence[NewJudgement]
) -> list[tuple[StoredJudgement, bool]]:
    """Store judgements of a request in the place of what the same raters said of the same.

    Each with whether it is new. No two of them may be of the same rater, kind and subject.
    """
    if not said:
        return []
    statement = insert(judgements).values([_row(tenant, request, each) for each in said])
    changes = {name: statement.excluded[name] for name in _SAID} | {"updated_at": _UPDATED_AT}
    query = statement.on_conflict_do_update(index_elements=_KEY, set_=changes).returning(
        *_COLUMNS, literal_column("xmax = 0").label("is_new")
    )
    rows = (await connection.execute(query)).mappings()
    return [(_stored(row), row["is_new"]) for row in rows]


def _row(tenant: UUID, request: UUID, said: NewJudgement) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "tenant_id": tenant,
        "request_id": request,
        "subtask_id": said.subtask,
        "kind": said.kind,
        "rater": said.rater,
        "subject": said.subject,
        "score": said.score,
        "rating": dict(said.rating),
        "reason": said.reason,
        "comment": said.comment,
        "correction": said.correction,
        "source": said.source,
    }


def _stored(row: RowMapping) -> StoredJudgement:
    fields = {column.name: row[column.name] for column in _COLUMNS}
    kind, source = JudgementKind(row["kind"]), JudgementSource(row["source"])
    return StoredJudgement(**{**fields, "kind": kind, "source": source})


_STOP = text("""
    INSERT INTO millrace.judgements (id, tenant_id, request_id, kind, rater, reason, source)
    SELECT CAST(:id AS uuid), q.tenant_id, q.id, 'stop', 'user:' || coalesce(q.end_user, ''),
           CAST(:reason AS text), 'system'
      FROM millrace.requests q WHERE q.id = :request
    ON CONFLICT DO NOTHING
""")


async def put_stop(connection: AsyncConnection, request: UUID, reason: str) -> None:
    """Store that the client of a request did not wait for its end."""
    await connection.execute(_STOP, {"id": uuid4(), "request": request, "reason": reason})


_JUDGED_PLAN = text("""
    SELECT plan FROM millrace.requests WHERE id = :request AND plan -> 'judgements' IS NOT NULL
""").columns(plan=judgements.c.rating.type)


async def judged_plan(connection: AsyncConnection, request: UUID) -> Mapping[str, Any] | None:
    """The plan of a request, if any of its steps has judged others."""
    found: Mapping[str, Any] | None = await connection.scalar(_JUDGED_PLAN, {"request": request})
    return found


async def of_request(
    connection: AsyncConnection, tenant: UUID, request: UUID, limit: int
) -> list[StoredJudgement]:
    """The judgements of a request of this tenant, oldest first."""
    query = (
        select(*_COLUMNS)
        .filter_by(tenant_id=tenant, request_id=request)
        .order_by(judgements.c.created_at, judgements.c.rater, judgements.c.subject)
        .limit(limit)
    )
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


class Opinion(StrEnum):
    """What a score says, as people look for it."""

    GOOD = "good"
    BAD = "bad"
    NONE = "none"
    """A comment, a stop or a retry without a score."""


_SCORE = judgements.c.score
_HALF = 0.5
_SAYS: Mapping[Opinion, ColumnElement[bool]] = {
    Opinion.GOOD: _SCORE >= _HALF,
    Opinion.BAD: _SCORE < _HALF,
    Opinion.NONE: _SCORE.is_(None),
}


async def page(
    connection: AsyncConnection,
    tenant: UUID,
    *,
    opinion: Opinion | None = None,
    kind: JudgementKind | None = None,
    source: JudgementSource | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int = 50,
) -> list[StoredJudgement]:
    """Judgements of this tenant, those said last first; `before`: the last one of the page before.

    Wants a connection of `tenancy.as_tenant`.
    """
    query = select(*_COLUMNS).filter_by(tenant_id=tenant)
    if opinion is not None:
        query = query.where(_SAYS[opinion])
    if kind is not None:
        query = query.filter_by(kind=kind)
    if source is not None:
        query = query.filter_by(source=source)
    age = tuple_(judgements.c.updated_at, judgements.c.id)
    if before is not None:
        query = query.where(age < before)
    query = query.order_by(judgements.c.updated_at.desc(), judgements.c.id.desc()).limit(limit)
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


async def of_ids(
    connection: AsyncConnection, tenant: UUID, ids: Sequence[UUID]
) -> list[StoredJudgement]:
    """Those of this tenant that are still there, those said last first."""
    query = (
        select(*_COLUMNS)
        .filter_by(tenant_id=tenant)
        .where(judgements.c.id.in_(ids))
        .order_by(judgements.c.updated_at.desc(), judgements.c.id)
    )
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


async def find(connection: AsyncConnection, tenant: UUID, id_: UUID) -> StoredJudgement | None:
    """A judgement of this tenant."""
    query = select(*_COLUMNS).filter_by(tenant_id=tenant, id=id_)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _stored(row) if row else None


async def delete(connection: AsyncConnection, tenant: UUID, id_: UUID) -> bool:
    """Take back a judgement of this tenant; False if there is none."""
    query = judgements.delete().filter_by(tenant_id=tenant, id=id_)
    return (await connection.execute(query)).rowcount == 1
