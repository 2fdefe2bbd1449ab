"""models that are chosen by what people said; who lets their chats be used for training"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE millrace.routing_resets (
    tenant_id UUID NOT NULL,
    work TEXT NOT NULL,
    reset_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_routing_resets PRIMARY KEY (tenant_id, work),
    CONSTRAINT fk_routing_resets_tenant_id
        FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
)
"""
_COMMENTS = {
    "routing_resets.work": "Kind of work: answer, rag, code, part.",
    "routing_resets.reset_at": "What was said before does not count.",
    "tenants.training": "Its rated chats may be exported to train models.",
}
# A client said no, or deleted it.
_KEPT_BACK = """
CREATE FUNCTION millrace.kept_back(question jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$ SELECT coalesce(question ->> 'training', '') = 'false'
          OR coalesce(question ->> 'hidden', '') = 'true' $$
"""
_OWNERS = (
    "CREATE POLICY owner ON millrace.routing_resets TO CURRENT_USER USING (true) WITH CHECK (true)"
)
_TENANTS = """
    CREATE POLICY tenant ON millrace.routing_resets TO millrace_app
     USING (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
     WITH CHECK (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
"""


def upgrade() -> None:
    """Apply."""
    op.execute(_TABLE)
    op.execute("ALTER TABLE millrace.tenants ADD COLUMN training BOOLEAN DEFAULT false NOT NULL")
    op.execute(_KEPT_BACK)
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN millrace.{column} IS '{comment}'")
    op.execute("""
        CREATE INDEX ix_judgements_of_people ON millrace.judgements (tenant_id, updated_at)
         WHERE kind IN ('human', 'retry')
    """)
    op.execute("ALTER TABLE millrace.routing_resets ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE millrace.routing_resets FORCE ROW LEVEL SECURITY")
    op.execute(_OWNERS)
    op.execute(_TENANTS)
    op.execute("GRANT SELECT, INSERT, UPDATE ON millrace.routing_resets TO millrace_app")


def downgrade() -> None:
    """Take back."""
    op.execute("DROP FUNCTION millrace.kept_back")
    op.execute("DROP INDEX millrace.ix_judgements_of_people")
    op.execute("ALTER TABLE millrace.tenants DROP COLUMN training")
    op.execute("DROP TABLE millrace.routing_resets")
