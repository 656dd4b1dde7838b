"""Group policies: how a group's images are brought, and in which order.

Safe beside the previous release: it leaves both columns out when it writes, and does not look at them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; with a constant for a default no database rewrites a table for them."""
    op.add_column("groups", sa.Column("policy", sa.JSON))
    op.add_column("group_artifacts", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them; what they held is lost."""
    op.drop_column("group_artifacts", "priority")
    op.drop_column("groups", "policy")
