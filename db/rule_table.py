"""The table of rules: one row for each version. What a version says never changes."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
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

from db.models import SCHEMA, metadata, sql_list
from queue_schemas.states import RuleState

RULE_KINDS = ("prompt", "retrieval", "route", "split")
"""What a rule may change, as `master.rules.rule.RuleKind` has it; a test compares them."""


def _object(name: str, comment: str) -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment=comment)


rules = Table(
    "rules",
    metadata,
    Column("id", Uuid, primary_key=True, comment="Of the version."),
    Column("tenant_id", Uuid, ForeignKey(f"{SCHEMA}.tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    _object("scope", "Where it holds: strategy, model, topic; empty: everywhere."),
    Column("change", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=RuleState.PROPOSED),
    Column("share", Double, comment="Of the questions that fit, while it is on trial."),
    Column(
        "measured",
        Boolean,
        nullable=False,
        server_default="false",
        comment="A measured lift made it active; it keeps a control group.",
    ),
    Column(
        "parent",
        Uuid,
        ForeignKey(f"{SCHEMA}.rules.id"),
        comment="The version of the name that held, or else the newest, when it was proposed.",
    ),
    Column(
        "replaced",
        Uuid,
        ForeignKey(f"{SCHEMA}.rules.id"),
        comment="The version in whose place it became active, until that was taken back.",
    ),
    _object("provenance", "Where it comes from: by whom, which feedback, which workflow."),
    Column("note", Text, comment="Why, as whoever proposed it or decided last said it."),
    Column("decided_by", Text, comment="Who put it into its state."),
    Column("decided_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("tenant_id", "name", "version"),
    CheckConstraint("name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'", name="name"),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint(f"kind IN ({sql_list(RULE_KINDS)})", name="kind"),
    CheckConstraint(f"state IN ({sql_list(RuleState)})", name="state"),
    CheckConstraint(
        "jsonb_typeof(scope) = 'object' AND jsonb_typeof(provenance) = 'object'", name="objects"
    ),
    CheckConstraint("coalesce(change ->> 'kind', '') = kind", name="change"),
    CheckConstraint(
        "(state = 'canary') = (share IS NOT NULL) AND (share IS NULL OR share > 0 AND share <= 1)",
        name="share",
    ),
    CheckConstraint("NOT measured OR state IN ('active', 'retired')", name="measured"),
    CheckConstraint(
        "(state = 'proposed') = (decided_at IS NULL)"
        " AND (decided_at IS NULL) = (decided_by IS NULL)",
        name="decided",
    ),
    Index(
        "uq_rules_active",
        "tenant_id",
        "name",
        unique=True,
        postgresql_where=text("state = 'active'"),
    ),
    Index(
        "uq_rules_canary",
        "tenant_id",
        "name",
        unique=True,
        postgresql_where=text("state = 'canary'"),
    ),
    Index(
        "ix_rules_in_force",
        "tenant_id",
        postgresql_where=text("state IN ('shadow', 'canary', 'active')"),
    ),
)
