"""Unresolved artifacts: what the source did not have when a group was last to be published.

Safe beside the previous release: it neither reads nor writes this table, and what it deletes takes its rows along.
What it publishes meanwhile leaves them as they were, until this release publishes next.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "unresolved_artifacts",
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("reference", sa.String(512), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "reference", name="pk_unresolved_artifacts"),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name="fk_unresolved_artifacts_group_id_groups", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Drop it; the next publication would have written it anew."""
    op.drop_table("unresolved_artifacts")
