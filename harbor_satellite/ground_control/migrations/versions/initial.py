"""The first schema: users, groups, satellites, tokens, credentials, states, reports, outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NAME = sa.String(128)
_DIGEST = sa.String(160)
_HASH = sa.String(64)
_MOMENT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create every table."""
    _create_users()
    _create_groups()
    _create_group_states()
    _create_satellites()
    _create_identities()
    _create_reports()
    _create_outbox()


def downgrade() -> None:
    """Drop every table, those that refer to others first."""
    for table in (
        "outbox",
        "satellite_reports",
        "credentials",
        "registration_tokens",
        "satellite_groups",
        "satellite_states",
        "satellites",
        "group_states",
        "group_artifacts",
        "retired_groups",
        "groups",
        "login_attempts",
        "sessions",
        "users",
    ):
        op.drop_table(table)


def _parent(table: str, column: str, parent: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{parent}"
    return sa.ForeignKeyConstraint([column], [f"{parent}.id"], name=name, ondelete="CASCADE")


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("username", _NAME, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
        sa.CheckConstraint("role IN ('system_admin', 'admin')", name=op.f("ck_users_role")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("token_hash", _HASH, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("token_hash", name="uq_sessions_token_hash"),
        _parent("sessions", "user_id", "users"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_table(
        "login_attempts",
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("failed_count", sa.Integer, nullable=False),
        sa.Column("last_failed_at", _MOMENT, nullable=False),
        sa.Column("locked_until", _MOMENT),
        sa.PrimaryKeyConstraint("user_id", name="pk_login_attempts"),
        _parent("login_attempts", "user_id", "users"),
    )


def _create_groups() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("registry", sa.String(512), nullable=False),
        sa.Column("expires_after_seconds", sa.Integer),
        sa.Column("generation_floor", sa.Integer, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
    )
    op.create_table(
        "retired_groups",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_retired_groups"),
    )
    op.create_table(
        "group_artifacts",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("digest", _DIGEST),
        sa.Column("labels", sa.JSON),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_group_artifacts"),
        _parent("group_artifacts", "group_id", "groups"),
    )
    op.create_index("ix_group_artifacts_group_id", "group_artifacts", ["group_id"])


def _create_group_states() -> None:
    op.create_table(
        "group_states",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_group_states"),
        sa.UniqueConstraint("group_id", "generation", name="uq_group_states_group_id_generation"),
        _parent("group_states", "group_id", "groups"),
    )


def _create_satellites() -> None:
    op.create_table(
        "satellites",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("schedule", sa.String(128), nullable=False),
        sa.Column("config_name", _NAME, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.Column("last_seen", _MOMENT),
        sa.Column("report_interval_seconds", sa.Integer),
        sa.Column("state_digest", _DIGEST),
        sa.Column("state_published_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_satellites"),
        sa.UniqueConstraint("name", name="uq_satellites_name"),
    )
    op.create_index("ix_satellites_last_seen", "satellites", ["last_seen"])
    op.create_table(
        "satellite_states",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("published_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_satellite_states"),
        _parent("satellite_states", "satellite_id", "satellites"),
    )
    op.create_index("ix_satellite_states_satellite_id", "satellite_states", ["satellite_id"])
    op.create_table(
        "satellite_groups",
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("satellite_id", "group_id", name="pk_satellite_groups"),
        _parent("satellite_groups", "satellite_id", "satellites"),
        _parent("satellite_groups", "group_id", "groups"),
    )
    op.create_index("ix_satellite_groups_group_id", "satellite_groups", ["group_id"])


def _create_identities() -> None:
    op.create_table(
        "registration_tokens",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("token_hash", _HASH, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("claimed_at", _MOMENT),
        sa.Column("claim_key_hash", _HASH),
        sa.Column("revoked_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_registration_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_registration_tokens_token_hash"),
        _parent("registration_tokens", "satellite_id", "satellites"),
    )
    op.create_index("ix_registration_tokens_satellite_id", "registration_tokens", ["satellite_id"])
    op.create_table(
        "credentials",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("secret_hash", _HASH, nullable=False),
        sa.Column("source_credential_id", sa.String(255)),
        sa.Column("expires_at", _MOMENT),
        sa.Column("granted_projects", sa.JSON, nullable=False),
        sa.Column("first_used_at", _MOMENT),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_credentials"),
        sa.UniqueConstraint("username", name="uq_credentials_username"),
        _parent("credentials", "satellite_id", "satellites"),
    )
    op.create_index("ix_credentials_satellite_id", "credentials", ["satellite_id"])


def _create_reports() -> None:
    op.create_table(
        "satellite_reports",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("reported_at", _MOMENT, nullable=False),
        sa.Column("latest_state_digest", _DIGEST),
        sa.Column("applied_at", _MOMENT),
        sa.Column("bytes_from_source", sa.BigInteger, nullable=False),
        sa.Column("image_count", sa.BigInteger, nullable=False),
        sa.Column("failure_count", sa.Integer, nullable=False),
        sa.Column("body", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_satellite_reports"),
        _parent("satellite_reports", "satellite_id", "satellites"),
    )
    op.create_index("ix_satellite_reports_satellite_id_id", "satellite_reports", ["satellite_id", "id"])


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("event", sa.String(128), nullable=False),
        sa.Column("resource_id", sa.String(255), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("available_at", _MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("delivered_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_delivered_at_available_at", "outbox", ["delivered_at", "available_at"])
