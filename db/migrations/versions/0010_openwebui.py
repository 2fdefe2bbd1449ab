"""what was taken over from Open WebUI, and what tells that a question was asked again"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ASKED = (
    "ALTER TABLE millrace.requests ADD COLUMN asked_digest BYTEA",
    """
    COMMENT ON COLUMN millrace.requests.asked_digest IS
        'SHA-256 of what was asked, where asking again says something of the answer.'
    """,
    """
    CREATE INDEX ix_requests_asked_digest ON millrace.requests (tenant_id, asked_digest, created_at)
     WHERE asked_digest IS NOT NULL
    """,
)

_MESSAGES = """
CREATE TABLE millrace.openwebui_messages (
    tenant_id UUID NOT NULL,
    message_id TEXT NOT NULL,
    request_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    chat_id TEXT,
    user_message_id TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_openwebui_messages PRIMARY KEY (tenant_id, message_id, request_id),
    CONSTRAINT fk_openwebui_messages_tenant_id FOREIGN KEY(tenant_id)
        REFERENCES millrace.tenants (id),
    CONSTRAINT fk_openwebui_messages_request_id FOREIGN KEY(request_id)
        REFERENCES millrace.requests (id) ON DELETE CASCADE
);
COMMENT ON TABLE millrace.openwebui_messages IS
    'Which request answered which message. Rounds with tools are several requests of one message.';
COMMENT ON COLUMN millrace.openwebui_messages.chat_id IS 'Null: the header was not sent.';
COMMENT ON COLUMN millrace.openwebui_messages.user_message_id IS 'The question that it answers.';
CREATE INDEX ix_openwebui_messages_request_id ON millrace.openwebui_messages (request_id);
"""

_SOURCES = """
CREATE TABLE millrace.openwebui_sources (
    tenant_id UUID NOT NULL,
    url TEXT NOT NULL,
    watermark BIGINT DEFAULT '0' NOT NULL,
    page INTEGER,
    reached BIGINT,
    held_by UUID,
    held_until TIMESTAMP WITH TIME ZONE,
    pulled_at TIMESTAMP WITH TIME ZONE,
    error TEXT,
    CONSTRAINT pk_openwebui_sources PRIMARY KEY (tenant_id, url),
    CONSTRAINT fk_openwebui_sources_tenant_id FOREIGN KEY(tenant_id)
        REFERENCES millrace.tenants (id)
);
COMMENT ON COLUMN millrace.openwebui_sources.watermark IS
    'Seconds of its clock: everything that changed before was seen.';
COMMENT ON COLUMN millrace.openwebui_sources.page IS
    'Where the next round goes on in the list; null: at its beginning.';
COMMENT ON COLUMN millrace.openwebui_sources.reached IS
    'The latest change when that began: the watermark to come.';
COMMENT ON COLUMN millrace.openwebui_sources.held_by IS 'The round that goes on.';
COMMENT ON COLUMN millrace.openwebui_sources.held_until IS
    'From then on it is taken for dead.';
COMMENT ON COLUMN millrace.openwebui_sources.pulled_at IS 'When a round was completed.';
COMMENT ON COLUMN millrace.openwebui_sources.error IS 'Why the last round was not completed.';
"""

_FEEDBACK = """
CREATE TABLE millrace.openwebui_feedback (
    tenant_id UUID NOT NULL,
    url TEXT NOT NULL,
    feedback_id TEXT NOT NULL,
    digest BYTEA NOT NULL,
    changed BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    judgement_id UUID,
    CONSTRAINT pk_openwebui_feedback PRIMARY KEY (tenant_id, url, feedback_id),
    CONSTRAINT ck_openwebui_feedback_outcome
        CHECK (outcome IN ('foreign', 'other', 'stored', 'unknown', 'unreadable')),
    CONSTRAINT fk_openwebui_feedback_tenant_id FOREIGN KEY(tenant_id)
        REFERENCES millrace.tenants (id),
    CONSTRAINT fk_openwebui_feedback_tenant_id_url FOREIGN KEY(tenant_id, url)
        REFERENCES millrace.openwebui_sources (tenant_id, url) ON DELETE CASCADE,
    CONSTRAINT fk_openwebui_feedback_judgement_id FOREIGN KEY(judgement_id)
        REFERENCES millrace.judgements (id) ON DELETE SET NULL
);
COMMENT ON TABLE millrace.openwebui_feedback IS
    'Every rating that was seen, so that changes and deletions are found.';
COMMENT ON COLUMN millrace.openwebui_feedback.digest IS 'SHA-256 of what it said.';
COMMENT ON COLUMN millrace.openwebui_feedback.changed IS 'Seconds of Open WebUI''s clock.';
COMMENT ON COLUMN millrace.openwebui_feedback.judgement_id IS
    'What it became; null: nothing, or it was taken back here.';
CREATE INDEX ix_openwebui_feedback_judgement_id ON millrace.openwebui_feedback (judgement_id)
    WHERE judgement_id IS NOT NULL;
"""

_TABLES = ("openwebui_messages", "openwebui_sources", "openwebui_feedback")
_OWN = "tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid)"


def upgrade() -> None:
    """Apply."""
    for statement in _ASKED:
        op.execute(statement)
    for table in (_MESSAGES, _SOURCES, _FEEDBACK):
        for statement in table.split(";\n"):
            if statement.strip():
                op.execute(statement)
    for name in _TABLES:
        op.execute(f"ALTER TABLE millrace.{name} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE millrace.{name} FORCE ROW LEVEL SECURITY")
        # A message is stored in the statement that stores its request, by the owner.
        op.execute(
            f"CREATE POLICY owner ON millrace.{name} TO CURRENT_USER USING (true) WITH CHECK (true)"
        )
        op.execute(
            f"CREATE POLICY tenant ON millrace.{name} TO millrace_app USING ({_OWN}) WITH CHECK ({_OWN})"
        )
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON millrace.{name} TO millrace_app")


def downgrade() -> None:
    """Take back."""
    for name in reversed(_TABLES):
        op.execute(f"DROP TABLE millrace.{name}")
    op.execute("ALTER TABLE millrace.requests DROP COLUMN asked_digest")
