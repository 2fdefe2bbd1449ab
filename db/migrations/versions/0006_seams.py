"""where another engine went on with the text of an attempt"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "attempts",
        sa.Column(
            "seams",
            JSONB(),
            nullable=True,
            comment="Where another engine went on with the text; null: nowhere.",
        ),
        schema="millrace",
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("attempts", "seams", schema="millrace")
