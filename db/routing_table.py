"""Since when judgements count for the choice of models."""

from sqlalchemy import Column, DateTime, ForeignKey, Index, Table, Text, Uuid, func, text

from db.models import SCHEMA, judgements, metadata

routing_resets = Table(
    "routing_resets",
    metadata,
    Column("tenant_id", Uuid, ForeignKey(f"{SCHEMA}.tenants.id"), primary_key=True),
    Column("work", Text, primary_key=True, comment="Kind of work: answer, rag, code, part."),
    Column(
        "reset_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="What was said before does not count.",
    ),
)

Index(
    "ix_judgements_of_people",
    judgements.c.tenant_id,
    judgements.c.updated_at,
    postgresql_where=text("kind IN ('human', 'retry')"),
)
