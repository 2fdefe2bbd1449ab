"""what a client had seen when a second execution began; since when the broker refuses a row"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "subtasks",
        sa.Column(
            "followed",
            sa.Uuid(),
            nullable=True,
            comment="Later execution that its stream follows; `shown` is what was seen before.",
        ),
        schema="millrace",
    )
    op.add_column(
        "outbox",
        sa.Column(
            "refused_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when the broker has been refusing it; `last_error` may have other reasons.",
        ),
        schema="millrace",
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("outbox", "refused_at", schema="millrace")
    op.drop_column("subtasks", "followed", schema="millrace")
