"""Run by alembic: migrate over the connection that the caller holds, inside its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from harbor_satellite.ground_control.models import Base

if TYPE_CHECKING:
    from sqlalchemy import Connection

_connection: Connection = context.config.attributes["connection"]
context.configure(connection=_connection, target_metadata=Base.metadata, compare_type=True)
context.run_migrations()
