"""Rules, configs, labels, receipts: what a Ground Control of a large fleet keeps.

Safe beside the previous release: it leaves the new columns out when it writes, and does not look at the new tables.
Two rules of its own are not held by what it writes meanwhile: a credential that it renews is not marked as such, and
a report that it takes is in its table but not in the satellite's row; the site's next report to this release is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# One statement that both databases take; through alembic SQLite would make the table anew, and lose what hangs on it.
_ADD_LIFECYCLE = (
    "ALTER TABLE satellites ADD COLUMN lifecycle VARCHAR(16) DEFAULT 'registered' NOT NULL "
    "CONSTRAINT ck_satellites_lifecycle CHECK (lifecycle IN ('registered', 'active', 'stale', 'revoked'))"
)

_TABLES = (
    "webhooks",
    "group_selectors",
    "group_rules",
    "rule_members",
    "configs",
    "retired_satellites",
    "retired_accounts",
    "applied_groups",
    "satellite_labels",
)
_COLUMNS = (
    ("credentials", "account_name"),
    ("credentials", "renewal_key_hash"),
    ("credentials", "is_renewal_due"),
    ("credentials", "superseded_at"),
    ("credentials", "revoked_at"),
    ("group_states", "projects"),
    ("groups", "config_name"),
    ("groups", "is_staged"),
    ("groups", "released_generation"),
    ("satellite_reports", "applied_groups"),
    ("satellites", "state_serial"),
    ("satellites", "lifecycle_since"),
    ("satellites", "credential_serial"),
    ("satellites", "applied_digest"),
    ("satellites", "applied_at"),
    ("satellites", "behind_since"),
    ("satellites", "reported_at"),
    ("satellites", "report_received_at"),
    ("satellites", "report_fingerprint"),
    ("satellites", "activity"),
    ("satellites", "failure_count"),
    ("satellites", "failure_reason"),
    ("satellites", "is_rolled_back"),
    ("satellites", "image_count"),
    ("satellites", "bytes_today"),
    ("satellites", "bytes_this_month"),
    ("satellites", "storage_free_bytes"),
    ("satellites", "link_bytes_per_second"),
)


def upgrade() -> None:
    """Create the tables and add the columns; with constants for defaults no database rewrites a table for them."""
    _create_tables_of_groups()
    _create_tables_of_satellites()
    _add_columns()
    op.execute("UPDATE satellites SET lifecycle = 'active' WHERE last_seen IS NOT NULL")


def downgrade() -> None:
    """Drop them; what they held is lost."""
    op.drop_index("ix_group_artifacts_repository", "group_artifacts")
    op.drop_index("ix_satellites_behind_since", "satellites")
    op.create_index("ix_satellites_last_seen", "satellites", ["last_seen"])
    op.drop_index("ix_satellite_reports_received_at", "satellite_reports")
    op.drop_index("ix_credentials_account_name", "credentials")
    for table, column in reversed(_COLUMNS):
        op.drop_column(table, column)
    op.drop_column("satellites", "lifecycle")
    for table in reversed(_TABLES):
        op.drop_table(table)


def _create_tables_of_groups() -> None:
    op.create_table(
        "webhooks",
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_event_at", sa.DateTime(timezone=True)),
        sa.Column("harbor_policy_id", sa.Integer),
        sa.PrimaryKeyConstraint("project", name="pk_webhooks"),
    )
    op.create_table(
        "group_rules",
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("username", sa.String(128), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_push_at", sa.DateTime(timezone=True)),
        sa.Column("harbor_registry_id", sa.Integer),
        sa.Column("harbor_policy_id", sa.Integer),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_group_rules_group_id_groups", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id", name="pk_group_rules"),
        sa.UniqueConstraint("username", name="uq_group_rules_username"),
    )
    op.create_table(
        "group_selectors",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("tag", sa.String(255), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("platforms", sa.JSON, nullable=False),
        sa.Column("newest", sa.Integer),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name="fk_group_selectors_group_id_groups", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_group_selectors"),
    )
    op.create_index("ix_group_selectors_group_id", "group_selectors", ["group_id"])
    op.create_table(
        "rule_members",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("tag", sa.String(160), nullable=False),
        sa.Column("digest", sa.String(160), nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name="fk_rule_members_group_id_groups", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rule_members"),
        sa.UniqueConstraint("group_id", "repository", "tag", name="uq_rule_members_group_id_repository_tag"),
    )
    op.create_index("ix_rule_members_group_id_digest", "rule_members", ["group_id", "digest"])
    op.create_index("ix_rule_members_repository", "rule_members", ["repository"])
    op.create_index("ix_group_artifacts_repository", "group_artifacts", ["repository"])


def _create_tables_of_satellites() -> None:
    op.create_table(
        "configs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("registry", sa.String(512), nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_configs"),
        sa.UniqueConstraint("name", name="uq_configs_name"),
    )
    op.create_table(
        "retired_satellites",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_retired_satellites"),
    )
    op.create_table(
        "retired_accounts",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("satellite", sa.String(128), nullable=False),
        sa.Column("source_credential_id", sa.String(255)),
        sa.PrimaryKeyConstraint("name", name="pk_retired_accounts"),
    )
    op.create_index("ix_retired_accounts_satellite", "retired_accounts", ["satellite"])
    op.create_table(
        "applied_groups",
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("group_name", sa.String(128), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(160), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["satellite_id"], ["satellites.id"], name="fk_applied_groups_satellite_id_satellites", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("satellite_id", "group_name", name="pk_applied_groups"),
    )
    op.create_index("ix_applied_groups_group_name_generation", "applied_groups", ["group_name", "generation"])
    op.create_table(
        "satellite_labels",
        sa.Column("satellite_id", sa.Integer, nullable=False),
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("value", sa.String(63), nullable=False),
        sa.ForeignKeyConstraint(
            ["satellite_id"], ["satellites.id"], name="fk_satellite_labels_satellite_id_satellites", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("satellite_id", "key", name="pk_satellite_labels"),
    )
    op.create_index("ix_satellite_labels_key_value", "satellite_labels", ["key", "value"])


def _add_columns() -> None:
    op.add_column("credentials", sa.Column("account_name", sa.String(128)))
    op.add_column("credentials", sa.Column("renewal_key_hash", sa.String(64)))
    op.add_column("credentials", sa.Column("is_renewal_due", sa.Boolean, server_default=sa.false(), nullable=False))
    op.add_column("credentials", sa.Column("superseded_at", sa.DateTime(timezone=True)))
    op.add_column("credentials", sa.Column("revoked_at", sa.DateTime(timezone=True)))
    op.add_column("group_states", sa.Column("projects", sa.JSON))
    op.add_column("groups", sa.Column("config_name", sa.String(128), server_default=sa.text("''"), nullable=False))
    op.add_column("groups", sa.Column("is_staged", sa.Boolean, server_default=sa.false(), nullable=False))
    op.add_column("groups", sa.Column("released_generation", sa.Integer))
    op.add_column("satellite_reports", sa.Column("applied_groups", sa.JSON))
    op.add_column("satellites", sa.Column("state_serial", sa.BigInteger, server_default="0", nullable=False))
    op.execute(_ADD_LIFECYCLE)
    op.add_column("satellites", sa.Column("lifecycle_since", sa.DateTime(timezone=True)))
    op.add_column("satellites", sa.Column("credential_serial", sa.Integer, server_default="0", nullable=False))
    op.add_column("satellites", sa.Column("applied_digest", sa.String(160)))
    op.add_column("satellites", sa.Column("applied_at", sa.DateTime(timezone=True)))
    op.add_column("satellites", sa.Column("behind_since", sa.DateTime(timezone=True)))
    op.add_column("satellites", sa.Column("reported_at", sa.DateTime(timezone=True)))
    op.add_column("satellites", sa.Column("report_received_at", sa.DateTime(timezone=True)))
    op.add_column("satellites", sa.Column("report_fingerprint", sa.String(64)))
    op.add_column("satellites", sa.Column("activity", sa.Text, server_default=sa.text("''"), nullable=False))
    op.add_column("satellites", sa.Column("failure_count", sa.Integer, server_default="0", nullable=False))
    op.add_column("satellites", sa.Column("failure_reason", sa.Text, server_default=sa.text("''"), nullable=False))
    op.add_column("satellites", sa.Column("is_rolled_back", sa.Boolean, server_default=sa.false(), nullable=False))
    op.add_column("satellites", sa.Column("image_count", sa.BigInteger, server_default="0", nullable=False))
    op.add_column("satellites", sa.Column("bytes_today", sa.BigInteger, server_default="0", nullable=False))
    op.add_column("satellites", sa.Column("bytes_this_month", sa.BigInteger, server_default="0", nullable=False))
    op.add_column("satellites", sa.Column("storage_free_bytes", sa.BigInteger))
    op.add_column("satellites", sa.Column("link_bytes_per_second", sa.BigInteger))
    op.create_index("ix_satellite_reports_received_at", "satellite_reports", ["received_at"])
    op.drop_index("ix_satellites_last_seen", "satellites")  # every report would have to change it, and nothing asks it
    op.create_index("ix_satellites_behind_since", "satellites", ["behind_since"])
    op.create_index("ix_credentials_account_name", "credentials", ["account_name"])
