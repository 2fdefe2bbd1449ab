"""The tables of what is remembered, conversations and vectors, and of what was forgotten.

What was said is not here: an exchange is a request of the conversation and its answer.
"""

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from db.models import SCHEMA, metadata


def _tenant() -> Column[object]:
    return Column("tenant_id", Uuid, ForeignKey(f"{SCHEMA}.tenants.id"), nullable=False)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


conversations = Table(
    "conversations",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column(
        "end_user",
        Text,
        nullable=False,
        server_default="",
        comment="Whose it is; empty: nobody was named.",
    ),
    Column("name", Text, comment="The name that its client made up, if it did."),
    Column("title", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("summary", JSONB, comment="Of its older exchanges: text, until when, how many."),
    Column(
        "summarising",
        JSONB,
        comment="The request that writes the next summary, and until when.",
    ),
    Column(
        "summarise_at",
        DateTime(timezone=True),
        comment="Since when a summary is due; null: none is.",
    ),
    Column(
        "summary_failures",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="How often the next summary failed so far.",
    ),
    Column(
        "embed_at",
        DateTime(timezone=True),
        comment="From when its exchanges are to get vectors; null: all have theirs.",
    ),
    _now("created_at"),
    _now("updated_at"),
    UniqueConstraint("tenant_id", "end_user", "name"),
    CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    Index("ix_conversations_tenant_id_end_user_updated_at", "tenant_id", "end_user", "updated_at"),
    Index(
        "ix_conversations_summarise_at",
        "summarise_at",
        postgresql_where=text("summarise_at IS NOT NULL"),
    ),
    Index(
        "ix_conversations_embed_at",
        "embed_at",
        postgresql_where=text("embed_at IS NOT NULL"),
    ),
)

exchange_vectors = Table(
    "exchange_vectors",
    metadata,
    Column(
        "request_id",
        Uuid,
        ForeignKey(f"{SCHEMA}.requests.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    _tenant(),
    Column(
        "conversation_id",
        Uuid,
        ForeignKey(f"{SCHEMA}.conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("model", Text, nullable=False),
    Column("embedding", VECTOR, nullable=False),
    _now("created_at"),
    Index("ix_exchange_vectors_conversation_id", "conversation_id"),
)

forgotten = Table(
    "forgotten",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("end_user", Text, nullable=False),
    Column("conversation_id", Uuid, nullable=False, comment="It may be deleted."),
    Column(
        "asked_at",
        DateTime(timezone=True),
        comment="Of one response that was deleted; null: the conversation was.",
    ),
    Column("requests", ARRAY(Uuid), nullable=False, comment="Whose words are to be nowhere."),
    _now("forgotten_at"),
    _now("look_at"),
)
