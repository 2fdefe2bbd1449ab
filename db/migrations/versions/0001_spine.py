"""the spine: tenants, requests, subtasks, outbox, workers"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
        schema="millrace",
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
        schema="millrace",
        comment="Workers serve every tenant, so they belong to none.",
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False, comment="Public part, for look-up."),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the whole key."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["millrace.tenants.id"], name=op.f("fk_api_keys_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
        schema="millrace",
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False, comment="As the client named it."),
        sa.Column("state", sa.Text(), server_default="accepted", nullable=False),
        sa.Column("question", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("plan", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column(
            "reply_to",
            sa.Text(),
            nullable=True,
            comment="Tokens queue of the replica that streams it.",
        ),
        sa.Column(
            "adopted",
            sa.Boolean(),
            server_default="false",
            nullable=False,
            comment="Another replica streams it than the one its messages name.",
        ),
        sa.Column(
            "priority",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="0 goes first.",
        ),
        sa.Column("background", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "previous_id",
            sa.Uuid(),
            nullable=True,
            comment="The request whose conversation it goes on.",
        ),
        sa.Column(
            "redriven_from", sa.Uuid(), nullable=True, comment="The failed request it does again."
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column(
            "body_digest",
            sa.LargeBinary(),
            nullable=True,
            comment="SHA-256 of the body that the key stands for.",
        ),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'completed', 'expired', 'failed')) = (finished_at IS NOT NULL)",
            name=op.f("ck_requests_finished"),
        ),
        sa.CheckConstraint(
            "state <> 'completed' OR answer IS NOT NULL", name=op.f("ck_requests_answered")
        ),
        sa.CheckConstraint(
            "state IN ('accepted', 'cancelled', 'completed', 'expired', 'failed', 'planning', 'running')",
            name=op.f("ck_requests_state"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["millrace.tenants.id"], name=op.f("fk_requests_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        sa.UniqueConstraint("redriven_from", name=op.f("uq_requests_redriven_from")),
        schema="millrace",
    )
    op.create_index(
        "ix_requests_open_deadline",
        "requests",
        ["deadline_at"],
        unique=False,
        schema="millrace",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "ix_requests_tenant_id_created_at",
        "requests",
        ["tenant_id", "created_at"],
        unique=False,
        schema="millrace",
    )
    op.create_index(
        "uq_requests_idempotency_key",
        "requests",
        ["tenant_id", "idempotency_key"],
        unique=True,
        schema="millrace",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "subtasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column(
            "position", sa.Integer(), nullable=False, comment="Place of the step in the plan."
        ),
        sa.Column("step", sa.Text(), nullable=False, comment="Key of the step in the plan."),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column(
            "owner", sa.Text(), nullable=False, comment="Tenant and end user: who shares fairly."
        ),
        sa.Column("depends_on", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="1", nullable=False),
        sa.Column(
            "losses",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Workers it outlived.",
        ),
        sa.Column(
            "shown", sa.Text(), server_default="", nullable=False, comment="Prefix to go on from."
        ),
        sa.Column("execution", sa.Uuid(), nullable=True),
        sa.Column("delivery", sa.Integer(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("reasoning", sa.Text(), nullable=True),
        sa.Column("tool_calls", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("logprobs", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("first_token_seconds", sa.Double(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="A person let this dead subtask be.",
        ),
        sa.CheckConstraint(
            "(state = 'blocked') = (ready_at IS NULL) OR finished_at IS NOT NULL",
            name=op.f("ck_subtasks_ready"),
        ),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL) AND (state <> 'running' OR (execution IS NOT NULL AND started_at IS NOT NULL))",
            name=op.f("ck_subtasks_leased"),
        ),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'dead', 'failed', 'skipped', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_subtasks_finished"),
        ),
        sa.CheckConstraint(
            "state <> 'queued' OR queued_at IS NOT NULL", name=op.f("ck_subtasks_queued")
        ),
        sa.CheckConstraint(
            "state <> 'succeeded' OR text IS NOT NULL", name=op.f("ck_subtasks_answered")
        ),
        sa.CheckConstraint(
            "state IN ('blocked', 'cancelled', 'dead', 'failed', 'queued', 'ready', 'running', 'skipped', 'succeeded')",
            name=op.f("ck_subtasks_state"),
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_subtasks_attempt")),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["millrace.requests.id"],
            name=op.f("fk_subtasks_request_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["millrace.tenants.id"], name=op.f("fk_subtasks_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subtasks")),
        sa.UniqueConstraint("request_id", "step", name=op.f("uq_subtasks_request_id_step")),
        schema="millrace",
    )
    op.create_index(
        "ix_subtasks_lease_until",
        "subtasks",
        ["lease_until"],
        unique=False,
        schema="millrace",
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_subtasks_open",
        "subtasks",
        ["model", "state"],
        unique=False,
        schema="millrace",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "ix_subtasks_dead",
        "subtasks",
        ["finished_at"],
        unique=False,
        schema="millrace",
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_table(
        "attempts",
        sa.Column("subtask_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("execution", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column(
            "outcome", sa.Text(), nullable=False, comment="completed, or the code of the failure."
        ),
        sa.Column(
            "applied", sa.Boolean(), nullable=False, comment="False: it came too late to count."
        ),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("engine_seconds", sa.Double(), nullable=False),
        sa.Column("load_seconds", sa.Double(), nullable=False),
        sa.Column("first_token_seconds", sa.Double(), nullable=True),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["subtask_id"],
            ["millrace.subtasks.id"],
            name=op.f("fk_attempts_subtask_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["millrace.tenants.id"], name=op.f("fk_attempts_tenant_id")
        ),
        sa.PrimaryKeyConstraint("subtask_id", "attempt", "execution", name=op.f("pk_attempts")),
        schema="millrace",
        comment="The ledger: one row for every execution that ended, counted or not.",
    )
    op.create_index(
        "ix_attempts_model_finished_at",
        "attempts",
        ["model", "finished_at"],
        unique=False,
        schema="millrace",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("subtask_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column(
            "available_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["subtask_id"],
            ["millrace.subtasks.id"],
            name=op.f("fk_outbox_subtask_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["millrace.tenants.id"], name=op.f("fk_outbox_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("subtask_id", "attempt", name=op.f("uq_outbox_subtask_id_attempt")),
        schema="millrace",
        comment="What is still to be published. A row goes when the broker has confirmed.",
    )
    op.create_index(
        "ix_outbox_due", "outbox", ["model", "available_at"], unique=False, schema="millrace"
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_outbox_due", table_name="outbox", schema="millrace")
    op.drop_table("outbox", schema="millrace")
    op.drop_index("ix_attempts_model_finished_at", table_name="attempts", schema="millrace")
    op.drop_table("attempts", schema="millrace")
    op.drop_index(
        "ix_subtasks_dead",
        table_name="subtasks",
        schema="millrace",
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.drop_index(
        "ix_subtasks_open",
        table_name="subtasks",
        schema="millrace",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.drop_index(
        "ix_subtasks_lease_until",
        table_name="subtasks",
        schema="millrace",
        postgresql_where=sa.text("state = 'running'"),
    )
    op.drop_table("subtasks", schema="millrace")
    op.drop_index(
        "uq_requests_idempotency_key",
        table_name="requests",
        schema="millrace",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index("ix_requests_tenant_id_created_at", table_name="requests", schema="millrace")
    op.drop_index(
        "ix_requests_open_deadline",
        table_name="requests",
        schema="millrace",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.drop_table("requests", schema="millrace")
    op.drop_table("api_keys", schema="millrace")
    op.drop_table("workers", schema="millrace")
    op.drop_table("tenants", schema="millrace")
