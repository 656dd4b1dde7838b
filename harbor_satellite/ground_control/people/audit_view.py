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
PRUNED_AT_ONCE: Final = 10_000
"""Events; what is left goes the next time."""


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


def prune(session: Session, before: datetime, *, limit: int = PRUNED_AT_ONCE) -> int:
    """Delete events that are older than that, a bounded number of them, and return how many they were."""
    some = select(AuditEvent.id).where(AuditEvent.occurred_at < before).order_by(AuditEvent.occurred_at).limit(limit)
    statement = delete(AuditEvent).where(AuditEvent.id.in_(some))
    done = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", done).rowcount
