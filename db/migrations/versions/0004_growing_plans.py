"""steps that are given up when they take too long; answers that may be given again"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "subtasks",
        sa.Column(
            "deadline_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Given up then, whatever the request does.",
        ),
        schema="millrace",
    )
    op.create_index(
        "ix_subtasks_deadline_at",
        "subtasks",
        ["deadline_at"],
        schema="millrace",
        postgresql_where=text("deadline_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.add_column(
        "requests",
        sa.Column(
            "cache_digest",
            sa.LargeBinary(),
            nullable=True,
            comment="SHA-256 of what was asked, where the answer may be given again.",
        ),
        schema="millrace",
    )
    op.create_index(
        "ix_requests_cache_digest",
        "requests",
        ["tenant_id", "cache_digest", "finished_at"],
        schema="millrace",
        postgresql_where=text("cache_digest IS NOT NULL"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_requests_cache_digest", "requests", schema="millrace")
    op.drop_column("requests", "cache_digest", schema="millrace")
    op.drop_index("ix_subtasks_deadline_at", "subtasks", schema="millrace")
    op.drop_column("subtasks", "deadline_at", schema="millrace")
