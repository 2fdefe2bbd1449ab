"""what was said of answers: by people, by judges, by those who stopped them"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE millrace.judgements (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    request_id UUID NOT NULL,
    subtask_id UUID,
    kind TEXT NOT NULL,
    rater TEXT NOT NULL,
    subject TEXT DEFAULT '' NOT NULL,
    score DOUBLE PRECISION,
    rating JSONB DEFAULT '{}'::jsonb NOT NULL,
    reason TEXT,
    comment TEXT,
    correction TEXT,
    source TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_judgements PRIMARY KEY (id),
    CONSTRAINT uq_judgements_request_id_kind_rater_subject
        UNIQUE (request_id, kind, rater, subject),
    CONSTRAINT ck_judgements_kind
        CHECK (kind IN ('check', 'choice', 'human', 'retry', 'review', 'stop')),
    CONSTRAINT ck_judgements_source CHECK (source IN ('api', 'openwebui', 'plan', 'system')),
    CONSTRAINT ck_judgements_score CHECK (score BETWEEN 0 AND 1),
    CONSTRAINT ck_judgements_rating CHECK (jsonb_typeof(rating) = 'object'),
    CONSTRAINT ck_judgements_subject CHECK (subtask_id IS NULL OR subject <> ''),
    CONSTRAINT fk_judgements_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id),
    CONSTRAINT fk_judgements_request_id FOREIGN KEY(request_id)
        REFERENCES millrace.requests (id) ON DELETE CASCADE,
    CONSTRAINT fk_judgements_subtask_id FOREIGN KEY(subtask_id)
        REFERENCES millrace.subtasks (id) ON DELETE CASCADE
)
"""
_COMMENTS = {
    "rater": "Who judged: user:<id> of a person, step:<key> of a judge, system.",
    "subject": "Key of the step that was judged; empty: the answer as a whole.",
    "score": "0 to 1; null: nothing that is a number was said.",
    "rating": "As it was given: thumb, stars, scores, passed.",
    "correction": "What the answer should have been.",
}

_OWNERS = (
    "CREATE POLICY owner ON millrace.judgements TO CURRENT_USER USING (true) WITH CHECK (true)"
)
_TENANTS = """
    CREATE POLICY tenant ON millrace.judgements TO millrace_app
     USING (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
     WITH CHECK (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
"""


def upgrade() -> None:
    """Apply."""
    op.execute(_TABLE)
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN millrace.judgements.{column} IS '{comment}'")
    op.execute("""
        CREATE INDEX ix_judgements_subtask_id ON millrace.judgements (subtask_id)
         WHERE subtask_id IS NOT NULL
    """)
    op.execute("ALTER TABLE millrace.judgements ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE millrace.judgements FORCE ROW LEVEL SECURITY")
    # The loops write for all tenants, in the transaction that ends a request.
    op.execute(_OWNERS)
    op.execute(_TENANTS)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON millrace.judgements TO millrace_app")


def downgrade() -> None:
    """Take back."""
    op.execute("DROP TABLE millrace.judgements")
