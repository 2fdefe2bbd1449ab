"""keys that were made in the console die with the key that made them"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("""
        ALTER TABLE millrace.api_keys
          ADD COLUMN made_with UUID
              CONSTRAINT fk_api_keys_made_with REFERENCES millrace.api_keys (id)
    """)
    op.execute("""
        COMMENT ON COLUMN millrace.api_keys.made_with IS
            'The key that made it in the console, and with which it is revoked.'
    """)


def downgrade() -> None:
    """Take back."""
    op.execute("ALTER TABLE millrace.api_keys DROP COLUMN made_with")
