"""conversations that are remembered"""

from alembic import op
from sqlalchemy import text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES = (
    """
CREATE TABLE millrace.conversations (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    end_user TEXT DEFAULT '' NOT NULL,
    name TEXT,
    title TEXT,
    metadata JSONB DEFAULT '{}'::jsonb NOT NULL,
    summary JSONB,
    summarising JSONB,
    summarise_at TIMESTAMP WITH TIME ZONE,
    summary_failures INTEGER DEFAULT 0 NOT NULL,
    embed_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_conversations PRIMARY KEY (id),
    CONSTRAINT uq_conversations_tenant_id_end_user_name UNIQUE (tenant_id, end_user, name),
    CONSTRAINT ck_conversations_metadata CHECK (jsonb_typeof(metadata) = 'object'),
    CONSTRAINT fk_conversations_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
)
""",
    """
CREATE TABLE millrace.exchange_vectors (
    request_id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    conversation_id UUID NOT NULL,
    model TEXT NOT NULL,
    embedding VECTOR NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_exchange_vectors PRIMARY KEY (request_id),
    CONSTRAINT fk_exchange_vectors_tenant_id
        FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id),
    CONSTRAINT fk_exchange_vectors_request_id FOREIGN KEY(request_id)
        REFERENCES millrace.requests (id) ON DELETE CASCADE,
    CONSTRAINT fk_exchange_vectors_conversation_id FOREIGN KEY(conversation_id)
        REFERENCES millrace.conversations (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE millrace.forgotten (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    end_user TEXT NOT NULL,
    conversation_id UUID NOT NULL,
    asked_at TIMESTAMP WITH TIME ZONE,
    requests UUID[] NOT NULL,
    forgotten_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    look_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_forgotten PRIMARY KEY (id),
    CONSTRAINT fk_forgotten_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
)
""",
)
_COMMENTS = {
    "conversations.end_user": "Whose it is; empty: nobody was named.",
    "conversations.name": "The name that its client made up, if it did.",
    "conversations.summary": "Of its older exchanges: text, until when, how many.",
    "conversations.summarising": "The request that writes the next summary, and until when.",
    "conversations.summarise_at": "Since when a summary is due; null: none is.",
    "conversations.summary_failures": "How often the next summary failed so far.",
    "conversations.embed_at": "From when its exchanges are to get vectors; null: all have theirs.",
    "forgotten.conversation_id": "It may be deleted.",
    "forgotten.asked_at": "Of one response that was deleted; null: the conversation was.",
    "forgotten.requests": "Whose words are to be nowhere.",
    "requests.conversation_id": "The conversation that it is a part of.",
}
_INDEXES = (
    """
    CREATE INDEX ix_conversations_tenant_id_end_user_updated_at
        ON millrace.conversations (tenant_id, end_user, updated_at)
    """,
    """
    CREATE INDEX ix_conversations_summarise_at ON millrace.conversations (summarise_at)
     WHERE summarise_at IS NOT NULL
    """,
    """
    CREATE INDEX ix_conversations_embed_at ON millrace.conversations (embed_at)
     WHERE embed_at IS NOT NULL
    """,
    """
    CREATE INDEX ix_requests_conversation_id ON millrace.requests (conversation_id, created_at)
     WHERE conversation_id IS NOT NULL
    """,
    # So that exchanges are counted without a look into their questions.
    """
    CREATE INDEX ix_requests_exchanges ON millrace.requests (conversation_id, created_at, id)
     WHERE conversation_id IS NOT NULL AND question -> 'hidden' IS NULL
       AND question ->> 'task' IS NULL
    """,
    """
    CREATE INDEX ix_requests_previous_id ON millrace.requests (previous_id)
     WHERE previous_id IS NOT NULL
    """,
    """
    CREATE INDEX ix_exchange_vectors_conversation_id
        ON millrace.exchange_vectors (conversation_id)
    """,
)
_OWNERS = "CREATE POLICY owner ON millrace.{} TO CURRENT_USER USING (true) WITH CHECK (true)"
_TENANTS = """
    CREATE POLICY tenant ON millrace.{} TO millrace_app
     USING (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
     WITH CHECK (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
"""


def upgrade() -> None:
    """Apply."""
    bind = op.get_bind()
    before = bind.scalar(text("SELECT current_setting('search_path')"))
    extensions = bind.scalar(
        text("""
            SELECT quote_ident(n.nspname)
              FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
             WHERE e.extname = 'vector'
        """)
    )
    op.execute(f"SET LOCAL search_path = millrace, {extensions}")
    for table in _TABLES:
        op.execute(table)
    op.execute("""
        ALTER TABLE millrace.requests ADD COLUMN conversation_id UUID
            CONSTRAINT fk_requests_conversation_id
            REFERENCES millrace.conversations (id) ON DELETE SET NULL
    """)
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN millrace.{column} IS '{comment}'")
    for index in _INDEXES:
        op.execute(index)
    for name in ("conversations", "exchange_vectors", "forgotten"):
        op.execute(f"ALTER TABLE millrace.{name} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE millrace.{name} FORCE ROW LEVEL SECURITY")
        # Loops summarise, embed and forget for all tenants.
        op.execute(_OWNERS.format(name))
    for name in ("conversations", "exchange_vectors"):
        op.execute(_TENANTS.format(name))
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON millrace.{name} TO millrace_app")
    bind.execute(text("SELECT set_config('search_path', :before, true)"), {"before": before})


def downgrade() -> None:
    """Take back."""
    op.execute("DROP INDEX millrace.ix_requests_previous_id")
    op.execute("DROP TABLE millrace.forgotten")
    op.execute("DROP TABLE millrace.exchange_vectors")
    op.execute("ALTER TABLE millrace.requests DROP COLUMN conversation_id")
    op.execute("DROP TABLE millrace.conversations")
