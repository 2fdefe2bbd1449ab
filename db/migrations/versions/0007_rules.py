"""rules and their versions"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE millrace.rules (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    scope JSONB DEFAULT '{}'::jsonb NOT NULL,
    change JSONB NOT NULL,
    state TEXT DEFAULT 'proposed' NOT NULL,
    share DOUBLE PRECISION,
    measured BOOLEAN DEFAULT false NOT NULL,
    parent UUID,
    replaced UUID,
    provenance JSONB DEFAULT '{}'::jsonb NOT NULL,
    note TEXT,
    decided_by TEXT,
    decided_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_rules PRIMARY KEY (id),
    CONSTRAINT uq_rules_tenant_id_name_version UNIQUE (tenant_id, name, version),
    CONSTRAINT ck_rules_name CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    CONSTRAINT ck_rules_version CHECK (version >= 1),
    CONSTRAINT ck_rules_kind CHECK (kind IN ('prompt', 'retrieval', 'route', 'split')),
    CONSTRAINT ck_rules_state CHECK (
        state IN ('active', 'canary', 'proposed', 'rejected', 'retired', 'shadow')),
    CONSTRAINT ck_rules_objects CHECK (
        jsonb_typeof(scope) = 'object' AND jsonb_typeof(provenance) = 'object'),
    CONSTRAINT ck_rules_change CHECK (coalesce(change ->> 'kind', '') = kind),
    CONSTRAINT ck_rules_share CHECK (
        (state = 'canary') = (share IS NOT NULL) AND (share IS NULL OR share > 0 AND share <= 1)),
    CONSTRAINT ck_rules_measured CHECK (NOT measured OR state IN ('active', 'retired')),
    CONSTRAINT ck_rules_decided CHECK (
        (state = 'proposed') = (decided_at IS NULL)
        AND (decided_at IS NULL) = (decided_by IS NULL)),
    CONSTRAINT fk_rules_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id),
    CONSTRAINT fk_rules_parent FOREIGN KEY(parent) REFERENCES millrace.rules (id),
    CONSTRAINT fk_rules_replaced FOREIGN KEY(replaced) REFERENCES millrace.rules (id)
)
"""
_COMMENTS = {
    "id": "Of the version.",
    "scope": "Where it holds: strategy, model, topic; empty: everywhere.",
    "share": "Of the questions that fit, while it is on trial.",
    "measured": "A measured lift made it active; it keeps a control group.",
    "parent": "The version of the name that held, or else the newest, when it was proposed.",
    "replaced": "The version in whose place it became active, until that was taken back.",
    "provenance": "Where it comes from: by whom, which feedback, which workflow.",
    "note": "Why, as whoever proposed it or decided last said it.",
    "decided_by": "Who put it into its state.",
}
_INDEXES = (
    "CREATE UNIQUE INDEX uq_rules_active ON millrace.rules (tenant_id, name) WHERE state = 'active'",
    "CREATE UNIQUE INDEX uq_rules_canary ON millrace.rules (tenant_id, name) WHERE state = 'canary'",
    """
    CREATE INDEX ix_rules_in_force ON millrace.rules (tenant_id)
     WHERE state IN ('shadow', 'canary', 'active')
    """,
)

# Whether two rules agree is a question about all of a tenant's, so their changes go one by one.
_HOLD = """
CREATE FUNCTION millrace.hold_rules(of_tenant uuid) RETURNS void
LANGUAGE sql VOLATILE STRICT
AS $$ SELECT pg_advisory_xact_lock(hashtextextended('millrace.rules ' || of_tenant::text, 0)) $$
"""

_OWNERS = "CREATE POLICY owner ON millrace.rules TO CURRENT_USER USING (true) WITH CHECK (true)"
_TENANTS = """
    CREATE POLICY tenant ON millrace.rules TO millrace_app
     USING (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
     WITH CHECK (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
"""
# What a version says cannot be changed by the role, and no version can be deleted.
_GRANTS = (
    "GRANT SELECT, INSERT ON millrace.rules TO millrace_app",
    """
    GRANT UPDATE (state, share, measured, replaced, note, decided_by, decided_at, changed_at)
       ON millrace.rules TO millrace_app
    """,
    "REVOKE ALL ON FUNCTION millrace.hold_rules FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION millrace.hold_rules TO millrace_app",
)


def upgrade() -> None:
    """Apply."""
    op.execute(_TABLE)
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN millrace.rules.{column} IS '{comment}'")
    for index in _INDEXES:
        op.execute(index)
    op.execute(_HOLD)
    op.execute("ALTER TABLE millrace.rules ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE millrace.rules FORCE ROW LEVEL SECURITY")
    op.execute(_OWNERS)
    op.execute(_TENANTS)
    for grant in _GRANTS:
        op.execute(grant)


def downgrade() -> None:
    """Take back."""
    op.execute("DROP TABLE millrace.rules")
    op.execute("DROP FUNCTION millrace.hold_rules")
