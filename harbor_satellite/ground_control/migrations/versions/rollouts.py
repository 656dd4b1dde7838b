"""Rollouts: which generation each satellite may have, and who moves it there.

Safe beside the previous release: it does not look at these tables, and sends every generation to every satellite.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "generation_pins",
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("is_rollback", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.Column("is_held", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name="fk_generation_pins_group_id_groups", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["satellite_id"], ["satellites.id"], name="fk_generation_pins_satellite_id_satellites", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("satellite_id", "group_id", name="pk_generation_pins"),
    )
    op.create_index("ix_generation_pins_group_id", "generation_pins", ["group_id"])
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("is_rollback", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("waves", sa.JSON, nullable=False),
        sa.Column("max_failures", sa.Integer, nullable=False),
        sa.Column("receipt_timeout_seconds", sa.Integer, nullable=False),
        sa.Column("current_wave", sa.Integer, nullable=False),
        sa.Column("wave_started_at", sa.DateTime(timezone=True)),
        sa.Column("wave_settled_at", sa.DateTime(timezone=True)),
        sa.Column("paused_state", sa.String(16), server_default=sa.text("''"), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('planned', 'running', 'soaking', 'paused', 'aborted', 'completed', 'rolled_back')",
            name=op.f("ck_rollouts_state"),
        ),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_rollouts_group_id_groups", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
    )
    op.create_index("ix_rollouts_group_id", "rollouts", ["group_id"])
    op.create_index("ix_rollouts_state", "rollouts", ["state"])
    op.create_table(
        "rollout_satellites",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("rollout_id", sa.Integer, nullable=False),
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("from_generation", sa.Integer, nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True)),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'released', 'succeeded', 'failed', 'skipped')",
            name=op.f("ck_rollout_satellites_state"),
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name="fk_rollout_satellites_rollout_id_rollouts", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["satellite_id"],
            ["satellites.id"],
            name="fk_rollout_satellites_satellite_id_satellites",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rollout_satellites"),
    )
    op.create_index(
        "ix_rollout_satellites_rollout_id_wave_state", "rollout_satellites", ["rollout_id", "wave", "state"]
    )
    op.create_index("ix_rollout_satellites_satellite_id", "rollout_satellites", ["satellite_id"])


def downgrade() -> None:
    """Drop them; every satellite follows the newest generations again."""
    for table in ("rollout_satellites", "rollouts", "generation_pins"):
        op.drop_table(table)
