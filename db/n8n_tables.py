"""The tables that n8n's workflows write, through functions of migration 0012 only."""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from db.models import SCHEMA, metadata, sql_list


class NoteSource(StrEnum):
    """Where a note in the inbox comes from."""

    WEBHOOK = "webhook"
    """Somebody called n8n; the note is a body of `/v1/feedback`."""
    OPENWEBUI = "openwebui"
    """n8n read it there; the note is a rating as Open WebUI has it."""


class NoteState(StrEnum):
    """What became of a note."""

    WAITING = "waiting"
    """No master has verified it, or the answer has not ended yet."""
    STORED = "stored"
    """It is a judgement."""
    REFUSED = "refused"
    """It is none; `problem` says why."""


def _time(name: str, *, now: bool = False, nullable: bool = False) -> Column[object]:
    return Column(
        name,
        DateTime(timezone=True),
        nullable=nullable,
        server_default=func.now() if now else None,
    )


feedback_inbox = Table(
    "feedback_inbox",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column(
        "tenant_id",
        Uuid,
        ForeignKey(f"{SCHEMA}.tenants.id"),
        comment="Whose answer it is about; null: not verified.",
    ),
    Column("source", Text, nullable=False),
    Column("external_id", Text, comment="Its id where it comes from."),
    Column(
        "changed",
        BigInteger,
        comment="When it was changed there, in seconds of that clock.",
    ),
    Column(
        "note",
        JSONB,
        nullable=False,
        comment="The body of /v1/feedback, or a rating of Open WebUI; empty once it was handled.",
    ),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the note as it came."),
    Column("request_id", Uuid, comment="The request that it is about, as far as that is known."),
    Column("state", Text, nullable=False, server_default=NoteState.WAITING),
    Column("problem", Text, comment="Why it was refused, or why it still waits."),
    _time("received_at", now=True),
    _time("handled_at", nullable=True),
    CheckConstraint(f"source IN ({sql_list(NoteSource)})", name="source"),
    CheckConstraint(f"state IN ({sql_list(NoteState)})", name="state"),
    CheckConstraint("jsonb_typeof(note) = 'object'", name="note"),
    CheckConstraint("(state = 'waiting') = (handled_at IS NULL)", name="handled"),
    CheckConstraint("state <> 'refused' OR problem IS NOT NULL", name="problem"),
    Index(
        "uq_feedback_inbox_external",
        "source",
        "external_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    Index(
        "ix_feedback_inbox_waiting",
        "received_at",
        postgresql_where=text("state = 'waiting'"),
    ),
    Index(
        "ix_feedback_inbox_request_id",
        "request_id",
        postgresql_where=text("state = 'waiting'"),
    ),
    comment="What was said somewhere else, until a master has verified it.",
)

# Of the events, activity and alerts no tenant need be known here: what was watched may be older.
watched_events = Table(
    "watched_events",
    metadata,
    Column("digest", LargeBinary, primary_key=True, comment="SHA-256 of the event."),
    Column("tenant_id", Uuid),
    Column("type", Text, nullable=False),
    Column("request_id", Uuid),
    _time("at"),
    Column("detail", JSONB, nullable=False),
    _time("seen_at", now=True),
    Index("ix_watched_events_seen_at", "seen_at"),
    comment="Events that n8n has counted, so that none counts twice.",
)

activity = Table(
    "activity",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("tenant_id", Uuid, primary_key=True, comment="All zeros: of no tenant."),
    Column("type", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    comment="How often what happened, by the hour.",
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("tenant_id", Uuid),
    Column("key", Text, nullable=False, comment="The same thing has the same key."),
    Column("kind", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("times", BigInteger, nullable=False, server_default="1"),
    _time("first_at", now=True),
    _time("last_at", now=True),
    _time("sent_at", nullable=True),
    UniqueConstraint("key"),
    Index("ix_alerts_unsent", "first_at", postgresql_where=text("sent_at IS NULL")),
    comment="What a person should know; one row for each thing.",
)

reports = Table(
    "reports",
    metadata,
    Column("tenant_id", Uuid, ForeignKey(f"{SCHEMA}.tenants.id"), primary_key=True),
    Column("starts_at", DateTime(timezone=True), primary_key=True),
    _time("ends_at"),
    Column("text", Text, nullable=False),
    _time("created_at", now=True),
    CheckConstraint("starts_at < ends_at", name="period"),
    comment="What n8n wrote about a week.",
)
