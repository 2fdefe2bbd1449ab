"""what a client had seen when a second execution began"""

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


def downgrade() -> None:
    """Take back."""
    op.drop_column("subtasks", "followed", schema="millrace")
