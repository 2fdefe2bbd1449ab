"""The tables of what is taken over from Open WebUI: its messages, and its users' ratings."""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from db.models import SCHEMA, metadata, sql_list


class Outcome(StrEnum):
    """What became of a rating that was seen."""

    STORED = "stored"
    """It is a judgement of one of our requests."""
    UNKNOWN = "unknown"
    """No message of ours has this id: another connection's answer, or one before the headers."""
    FOREIGN = "foreign"
    """The message is ours, but of another user or another chat."""
    UNREADABLE = "unreadable"
    """It says nothing that can be stored."""
    OTHER = "other"
    """It is no rating of a message."""


def _tenant() -> Column[object]:
    return Column("tenant_id", Uuid, ForeignKey(f"{SCHEMA}.tenants.id"), primary_key=True)


messages = Table(
    "openwebui_messages",
    metadata,
    _tenant(),
    Column("message_id", Text, primary_key=True),
    Column(
        "request_id",
        Uuid,
        ForeignKey(f"{SCHEMA}.requests.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("user_id", Text, nullable=False),
    Column("chat_id", Text, comment="Null: the header was not sent."),
    Column("user_message_id", Text, comment="The question that it answers."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_openwebui_messages_request_id", "request_id"),
    comment=(
        "Which request answered which message. "
        "Rounds with tools are several requests of one message."
    ),
)

sources = Table(
    "openwebui_sources",
    metadata,
    _tenant(),
    Column("url", Text, primary_key=True),
    Column(
        "watermark",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="Seconds of its clock: everything that changed before was seen.",
    ),
    Column(
        "page", Integer, comment="Where the next round goes on in the list; null: at its beginning."
    ),
    Column(
        "reached", BigInteger, comment="The latest change when that began: the watermark to come."
    ),
    Column("held_by", Uuid, comment="The round that goes on."),
    Column("held_until", DateTime(timezone=True), comment="From then on it is taken for dead."),
    Column("pulled_at", DateTime(timezone=True), comment="When a round was completed."),
    Column("error", Text, comment="Why the last round was not completed."),
)

feedback = Table(
    "openwebui_feedback",
    metadata,
    _tenant(),
    Column("url", Text, primary_key=True),
    Column("feedback_id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of what it said."),
    Column("changed", BigInteger, nullable=False, comment="Seconds of Open WebUI's clock."),
    Column("outcome", Text, nullable=False),
    Column(
        "judgement_id",
        Uuid,
        ForeignKey(f"{SCHEMA}.judgements.id", ondelete="SET NULL"),
        comment="What it became; null: nothing, or it was taken back here.",
    ),
    CheckConstraint(f"outcome IN ({sql_list(Outcome)})", name="outcome"),
    ForeignKeyConstraint(
        ["tenant_id", "url"],
        [f"{SCHEMA}.openwebui_sources.tenant_id", f"{SCHEMA}.openwebui_sources.url"],
        ondelete="CASCADE",
    ),
    Index(
        "ix_openwebui_feedback_judgement_id",
        "judgement_id",
        postgresql_where=text("judgement_id IS NOT NULL"),
    ),
    comment="Every rating that was seen, so that changes and deletions are found.",
)
