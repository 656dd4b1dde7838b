"""Schedules that were set at the sites themselves, as they last said.

Safe beside the previous release: it neither reads nor writes these columns, and the database fills them in.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("satellites", sa.Column("own_schedule", sa.String(128), nullable=False, server_default=""))
    op.add_column("satellites", sa.Column("own_timezone", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop them; sites say it again with their next news."""
    op.drop_column("satellites", "own_timezone")
    op.drop_column("satellites", "own_schedule")
