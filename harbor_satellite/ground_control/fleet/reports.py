"""Status reports: taken in, and answered as "is this site in step with the centre, and if not, since when".

A report that says nothing new costs one statement. Of those that do, a bounded number of rows stays; only the newest
keeps its body, and the satellite's own row repeats what the fleet is listed by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, select, update

from harbor_satellite.errors import NotFoundError
from harbor_satellite.ground_control.fleet.idle_reports import checked_report, note_nothing_new
from harbor_satellite.ground_control.fleet.report_values import (
    is_late,
    news_of,
    site_time,
    storable,
)
from harbor_satellite.ground_control.groups.unresolved import unresolved_of_satellite
from harbor_satellite.ground_control.models import (
    AppliedGroupRow,
    Credential,
    Satellite,
    SatelliteReport,
    SatelliteStateHistory,
)
from harbor_satellite.ground_control.satellites import credentials
from harbor_satellite.ground_control.satellites.satellites import show_satellite
from harbor_satellite.ground_control.satellites.schedules import note_own_schedule
from harbor_satellite.state.wire import ReportAnswer, StatusReport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.fleet.idle_reports import CheckedReport
    from harbor_satellite.ground_control.groups.unresolved import KnownUnresolved
    from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity
    from harbor_satellite.state.wire import CachedImage

KEPT_REPORTS: Final = 100  # of each satellite


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


def record_report(session: Session, identity: SatelliteIdentity, report: StatusReport, now: datetime) -> ReportAnswer:
    """Take in a report of an authenticated satellite.

    Returns:
        What the site is to be told.

    Raises:
        InvalidInputError: an interval, digest, count or time that cannot be; nothing is stored.
        NotFoundError: the satellite was deleted meanwhile.
    """
    checked = checked_report(identity, report, now)
    is_renewal_due = note_nothing_new(session, [checked]).get(identity.satellite_id)
    return record_news(session, checked) if is_renewal_due is None else answer_to(report, is_renewal_due=is_renewal_due)


def answer_to(report: StatusReport, *, is_renewal_due: bool) -> ReportAnswer:
    """Return what a site is told about a report that was taken. Pure."""
    # To the original's satellites an answer means nothing; ours learn from each that it was taken, and by whom.
    return ReportAnswer(is_renewal_due=is_renewal_due, is_short_taken=bool(report.news_digest))


def record_news(session: Session, checked: CheckedReport) -> ReportAnswer:
    """Take in a report that says something new.

    Returns:
        What the site is to be told: one that says it is "as before", and is not, is asked for the whole.

    Raises:
        NotFoundError: the satellite was deleted meanwhile.
    """
    if checked.report.is_as_before:
        return ReportAnswer(is_report_wanted=True)
    always = {**checked.always, "report_fingerprint": checked.fingerprint}
    is_renewal_due = _note_news(session, checked.identity, checked.report, always)
    return answer_to(checked.report, is_renewal_due=is_renewal_due)


def _note_news(session: Session, identity: SatelliteIdentity, report: StatusReport, always: dict[str, Any]) -> bool:
    now: datetime = always["last_seen"]
    satellite = session.get(Satellite, identity.satellite_id, with_for_update=True, populate_existing=True)
    if satellite is None:
        raise NotFoundError(f"no satellite {identity.name!r}")
    is_old_news = is_late(always["reported_at"], satellite.reported_at, satellite.report_received_at, now)
    credentials.note_first_use(session, identity, now)
    _forget_older(session, satellite, is_body_replaced=not is_old_news)
    session.add(_history_row(satellite, report, now, is_newest=not is_old_news))
    if not is_old_news:
        satellite.behind_since = _behind_since(session, satellite, report.latest_state_digest or None, now)
        for column, value in {**always, **news_of(report)}.items():
            setattr(satellite, column, value)
        note_own_schedule(session, satellite, report, now)
        if satellite.lifecycle in {"registered", "stale"}:
            satellite.lifecycle, satellite.lifecycle_since = "active", now
        _keep_applied_groups(session, satellite, report, now)
    credential = session.get(Credential, identity.credential_id)
    return credential is not None and credential.is_renewal_due


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
    behind_since = satellite.behind_since or _oldest_not_applied(session, satellite, applied)
    lag = None if behind_since is None else max(0.0, (now - behind_since).total_seconds())
    return SatelliteStatus(
        satellite=satellite,
        report_id=row.id,
        report=_with_figures(StatusReport.model_validate(row.body), satellite),
        reported_at=row.reported_at,
        received_at=row.received_at,
        is_in_step=in_step,
        lag_seconds=0.0 if in_step else lag,
        unresolved=unresolved_of_satellite(session, satellite),
    )


def list_images(session: Session, name: str) -> Sequence[CachedImage]:
    """Return what the site's newest report says its local registry holds; empty if it never reported.

    Raises:
        NotFoundError: there is no such satellite.
    """
    row = _newest(session, show_satellite(session, name))
    return [] if row is None else StatusReport.model_validate(row.body).cached_images


def list_reports(session: Session, name: str, limit: int) -> Sequence[SatelliteReport]:
    """Return the newest reports that said something new, in the order of arrival, newest first.

    Raises:
        NotFoundError: there is no such satellite.
    """
    satellite = show_satellite(session, name)
    query = select(SatelliteReport).where(SatelliteReport.satellite_id == satellite.id)
    return session.scalars(query.order_by(SatelliteReport.id.desc()).limit(limit)).all()


def _with_figures(report: StatusReport, satellite: Satellite) -> StatusReport:
    """Put into the newest report that was news what later ones without news said."""
    if satellite.report_fingerprint is None:
        return report
    figures = {
        "bytes_today": satellite.bytes_today,
        "bytes_this_month": satellite.bytes_this_month,
        "storage_free_bytes": satellite.storage_free_bytes,
        "link_bytes_per_second": satellite.link_bytes_per_second,
    }
    is_activity_known = storable(report.activity) == satellite.activity
    activity = report.activity if is_activity_known else satellite.activity
    return report.model_copy(update={**figures, "activity": activity})


def _newest(session: Session, satellite: Satellite) -> SatelliteReport | None:
    query = select(SatelliteReport).where(
        SatelliteReport.satellite_id == satellite.id, SatelliteReport.body.is_not(None)
    )
    return session.scalar(query.order_by(SatelliteReport.id.desc()).limit(1))


def _history_row(satellite: Satellite, report: StatusReport, now: datetime, *, is_newest: bool) -> SatelliteReport:
    return SatelliteReport(
        satellite_id=satellite.id,
        received_at=now,
        reported_at=site_time(report.request_created_time) or now,
        latest_state_digest=report.latest_state_digest or None,
        applied_at=site_time(report.applied_at),
        bytes_from_source=report.bytes_from_source,
        image_count=report.image_count,
        failure_count=len(report.failures),
        applied_groups={item.group: [item.generation, item.digest] for item in report.groups},
        body=report.model_dump(mode="json") if is_newest else None,
    )


def _forget_older(session: Session, satellite: Satellite, *, is_body_replaced: bool) -> None:
    mine = SatelliteReport.satellite_id == satellite.id
    if is_body_replaced:
        session.execute(update(SatelliteReport).where(mine, SatelliteReport.body.is_not(None)).values(body=None))
    kept = select(SatelliteReport.id).where(mine).order_by(SatelliteReport.id.desc())
    oldest_kept = kept.offset(KEPT_REPORTS - 2).limit(1).scalar_subquery()  # one more is about to come
    is_old = SatelliteReport.id < oldest_kept
    session.execute(delete(SatelliteReport).where(mine, is_old, SatelliteReport.body.is_(None)))


def _behind_since(session: Session, satellite: Satellite, applied: str | None, now: datetime) -> datetime | None:
    """Return since when a site is not on what was published for it, before its row takes the report in."""
    wanted = satellite.state_digest
    if wanted is None or applied == wanted:
        return None
    if applied is None:  # on no state wholly: the last one that it was on counts
        if satellite.behind_since is not None:
            return satellite.behind_since
        if satellite.applied_digest == wanted:
            return now  # it was in step, and something broke
        applied = satellite.applied_digest
    return _oldest_not_applied(session, satellite, applied) or satellite.state_published_at


def _oldest_not_applied(session: Session, satellite: Satellite, applied: str | None) -> datetime | None:
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
    return session.scalar(query)


def _keep_applied_groups(session: Session, satellite: Satellite, report: StatusReport, now: datetime) -> None:
    known = session.scalars(select(AppliedGroupRow).where(AppliedGroupRow.satellite_id == satellite.id))
    rows = {row.group_name: row for row in known}
    said = {item.group: (item.generation, item.digest) for item in report.groups}
    for gone in rows.keys() - said.keys():
        session.delete(rows[gone])
    for group, (generation, digest) in said.items():
        row = rows.get(group)
        if row is None:
            row = AppliedGroupRow(satellite_id=satellite.id, group_name=group, generation=-1, digest="")
            session.add(row)
        if (row.generation, row.digest) != (generation, digest):
            row.generation, row.digest, row.reported_at = generation, digest, now
