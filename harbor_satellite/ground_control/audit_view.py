"""Reading the audit log, and forgetting what is old. Events are never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import delete, select

from harbor_satellite.ground_control.models import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import CursorResult
    from sqlalchemy.orm import Session

PAGE_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events; what is empty filters nothing."""

    resource: str = ""
    actor: str = ""
    action: str = ""
    outcome: str = ""
    since: datetime | None = None
    """At or after this."""


def list_events(
    session: Session, wanted: AuditFilter, *, before: int | None = None, limit: int = 100
) -> Sequence[AuditEvent]:
    """Return events, the newest first.

    Args:
        session: reads.
        wanted: which ones.
        before: only those with a smaller id: the last one of the page before this.
        limit: at most so many, and at most ``PAGE_MAX``.
    """
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(min(limit, PAGE_MAX))
    for column, value in (
        (AuditEvent.resource, wanted.resource),
        (AuditEvent.actor, wanted.actor),
        (AuditEvent.action, wanted.action),
        (AuditEvent.outcome, wanted.outcome),
    ):
        if value:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(AuditEvent.occurred_at >= wanted.since)
    if before is not None:
        query = query.where(AuditEvent.id < before)
    return session.scalars(query).all()


def prune(session: Session, before: datetime) -> int:
    """Delete the events that are older than that, and return how many they were."""
    done = session.execute(delete(AuditEvent).where(AuditEvent.occurred_at < before))
    return cast("CursorResult[Any]", done).rowcount
