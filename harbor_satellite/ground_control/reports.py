"""Status reports: stored as they come, answered as "is this site in step with the centre, and if not, since when".

Only the newest report of a satellite keeps its body; of older ones a bounded number of rows stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, null, select, update

from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.ground_control import credentials
from harbor_satellite.ground_control.models import Satellite, SatelliteReport, SatelliteStateHistory
from harbor_satellite.ground_control.satellites import show_satellite
from harbor_satellite.ground_control.schedules import parse_interval
from harbor_satellite.ground_control.unresolved import unresolved_of_satellite
from harbor_satellite.oci.digest import is_digest
from harbor_satellite.state.wire import StatusReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.credentials import SatelliteIdentity
    from harbor_satellite.ground_control.unresolved import KnownUnresolved
    from harbor_satellite.state.wire import CachedImage

KEPT_REPORTS: Final = 100  # of each satellite
_COUNT_LIMIT: Final = 2**63 - 1  # what both databases hold
_EARLIEST_YEAR: Final = 2000  # a site without a clock, or Go's zero time


@dataclass(frozen=True, slots=True)
class SatelliteStatus:
    """What the centre knows about a site: its newest report, held against what the centre published."""

    satellite: Satellite
    report_id: int
    report: StatusReport
    reported_at: datetime
    received_at: datetime
    is_in_step: bool
    """The state that the site applied is the one that the centre last published for it."""
    lag_seconds: float | None
    """Since the oldest publication that the site has not applied; 0 in step, None if nothing was published."""
    unresolved: tuple[KnownUnresolved, ...]
    """What the site lacks, or holds as it was, because the source does not have it; no matter of being in step."""


def record_report(session: Session, identity: SatelliteIdentity, report: StatusReport, now: datetime) -> None:
    """Store a report of an authenticated satellite.

    Raises:
        InvalidInputError: an interval, digest, count or time that cannot be; nothing is stored.
    """
    interval = parse_interval(report.state_report_interval)
    if report.latest_state_digest and not is_digest(report.latest_state_digest):
        raise InvalidInputError(f"latest_state_digest is not a digest: {report.latest_state_digest[:100]!r}")
    bytes_read = max(report.bytes_from_source, report.bytes_today, report.bytes_this_month)
    if max(bytes_read, report.image_count, report.last_sync_duration_ms) > _COUNT_LIMIT:
        raise InvalidInputError("a count of the report is out of range")
    if not math.isfinite(report.cpu_percent):
        raise InvalidInputError("cpu_percent is not a number")
    satellite = session.get(Satellite, identity.satellite_id, with_for_update=True)
    if satellite is None:
        raise NotFoundError(f"no satellite {identity.name!r}")
    satellite.last_seen = now
    satellite.report_interval_seconds = interval
    credentials.note_first_use(session, identity, now)
    _forget_older(session, satellite)
    session.add(
        SatelliteReport(
            satellite_id=satellite.id,
            received_at=now,
            reported_at=_site_time(report.request_created_time) or now,
            latest_state_digest=report.latest_state_digest or None,
            applied_at=_site_time(report.applied_at),
            bytes_from_source=report.bytes_from_source,
            image_count=report.image_count,
            failure_count=len(report.failures),
            body=report.model_dump(mode="json"),
        )
    )


def show_status(session: Session, name: str, now: datetime) -> SatelliteStatus:
    """Return what is known about a site.

    Raises:
        NotFoundError: there is no such satellite, or it has not reported yet.
    """
    satellite = show_satellite(session, name)
    row = _newest(session, satellite)
    if row is None:
        raise NotFoundError(f"satellite {name!r} has not reported yet")
    applied = row.latest_state_digest
    in_step = applied is not None and applied == satellite.state_digest
    return SatelliteStatus(
        satellite=satellite,
        report_id=row.id,
        report=StatusReport.model_validate(row.body),
        reported_at=row.reported_at,
        received_at=row.received_at,
        is_in_step=in_step,
        lag_seconds=0.0 if in_step else _lag_seconds(session, satellite, applied, now),
        unresolved=unresolved_of_satellite(session, satellite),
    )


def list_images(session: Session, name: str) -> Sequence[CachedImage]:
    """Return what the site's newest report says its local registry holds; empty if it never reported.

    Raises:
        NotFoundError: there is no such satellite.
    """
    row = _newest(session, show_satellite(session, name))
    return [] if row is None else StatusReport.model_validate(row.body).cached_images


def _newest(session: Session, satellite: Satellite) -> SatelliteReport | None:
    query = select(SatelliteReport).where(SatelliteReport.satellite_id == satellite.id)
    # In the order of arrival: a site's clock may be wrong, and kept receipts are delivered in order.
    return session.scalar(query.order_by(SatelliteReport.id.desc()).limit(1))


def _forget_older(session: Session, satellite: Satellite) -> None:
    mine = SatelliteReport.satellite_id == satellite.id
    session.execute(update(SatelliteReport).where(mine, SatelliteReport.body.is_not(None)).values(body=null()))
    kept = select(SatelliteReport.id).where(mine).order_by(SatelliteReport.id.desc())
    oldest_kept = kept.offset(KEPT_REPORTS - 2).limit(1).scalar_subquery()  # one more is about to come
    session.execute(delete(SatelliteReport).where(mine, SatelliteReport.id < oldest_kept))


def _lag_seconds(session: Session, satellite: Satellite, applied: str | None, now: datetime) -> float | None:
    history = SatelliteStateHistory
    query = select(history.published_at).where(history.satellite_id == satellite.id).order_by(history.id).limit(1)
    if applied is not None:
        last_applied = (
            select(history.id)
            .where(history.satellite_id == satellite.id, history.digest == applied)
            .order_by(history.id.desc())
            .limit(1)
        )
        row_id = session.scalar(last_applied)
        query = query.where(history.id > row_id) if row_id is not None else query
    missed_since = session.scalar(query)
    return None if missed_since is None else max(0.0, (now - missed_since).total_seconds())


def _site_time(moment: datetime | None) -> datetime | None:
    if moment is None or moment.year < _EARLIEST_YEAR:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None  # the last day of year 9999, west of Greenwich
