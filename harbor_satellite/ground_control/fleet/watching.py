"""Watching the fleet: which runs in Prefect are no more, which sites have gone silent, which rows are too old.

The decision about a run is pure. What must not live here: Prefect (``tasks/watch.py`` asks it and tells it).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlalchemy import and_, delete, not_, select, update

from harbor_satellite.ground_control.fleet.fleet_states import is_silent
from harbor_satellite.ground_control.models import OutboxEvent, Satellite, SatelliteReport, UserSession
from harbor_satellite.ground_control.people import audit_view

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import CursorResult
    from sqlalchemy.orm import Session

REPLICATION: Final = "replicate-state"
START_LIMIT: Final = timedelta(minutes=15)
"""A run that was handed to a worker begins within its prefetch and poll, a few minutes; later it never does."""
RECEIPT_GRACE: Final = timedelta(minutes=15)
"""Between a site's report and the end of the run that made it; sites try for a while to deliver an end."""
SILENCE_LIMIT: Final = timedelta(hours=1)
"""Without poll, report or heartbeat; a site that comes back puts the end of its run above what was said here."""
HEARTBEAT_LIMIT: Final = timedelta(hours=1)
"""Since a run's last heartbeat, of one that had any."""
_KEPT_DELIVERED: Final = timedelta(days=1)
_KEPT_REPORTS: Final = timedelta(days=90)
_PRUNED_AT_ONCE: Final = 10_000  # rows of each table


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What Prefect believes about a run of a satellite that has not ended."""

    flow: str
    """The flow's name."""
    satellite: str
    is_running: bool
    """Or else pending: handed to a worker, and not begun."""
    since: datetime
    """When it came into that state."""
    last_heartbeat: datetime | None = None
    """None: it never had one, or nobody knows."""


@dataclass(frozen=True, slots=True)
class SiteSigns:
    """What a satellite's row says about its life."""

    is_revoked: bool
    last_seen: datetime | None
    reported_at: datetime | None
    """Our clock: when its newest report came."""
    is_in_step: bool
    is_overdue: bool
    """Three of its reports are missing."""
    alive_since: datetime | None = None
    """When it came back after it had gone silent; None: not known to have been away."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run is to be ended in Prefect, and why."""

    state: Literal["crashed", "cancelled"]
    reason: str


def verdict(run: RunFacts, site: SiteSigns | None, now: datetime) -> Verdict | None:
    """Decide whether a run that Prefect takes for alive is none; None: leave it alone.

    A run that works is never ended for taking long: a large image may cross a slow link for days. It is ended when
    its satellite is gone, when it never began, when the site itself reported to be done with it, or when neither
    the run nor the site has given a sign of life for an hour.

    Args:
        run: as Prefect has it.
        site: its satellite; None: there is no such satellite any more.
        now: this moment.
    """
    if site is None or site.is_revoked:
        return Verdict("cancelled", f"the satellite was {'revoked' if site else 'deleted'}")
    reason = _lost(run, site, now) if run.is_running else _never_begun(run, now)
    return Verdict("crashed", reason) if reason else None


def site_signs(session: Session, names: Collection[str], now: datetime) -> dict[str, SiteSigns]:
    """Return what is known of satellites, by name; those that are no more are left out."""
    row = Satellite
    is_in_step = and_(row.state_digest.is_not(None), row.applied_digest == row.state_digest)
    columns = (row.name, row.lifecycle, row.last_seen, row.report_received_at, is_in_step, is_silent(now))
    query = select(*columns, row.lifecycle_since).where(row.name.in_(names))
    return {
        name: SiteSigns(
            is_revoked=lifecycle == "revoked",
            last_seen=seen,
            reported_at=reported,
            is_in_step=bool(in_step),
            is_overdue=seen is None or bool(silent),
            alive_since=since if lifecycle == "active" else None,
        )
        for name, lifecycle, seen, reported, in_step, silent, since in session.execute(query)
    }


def mark_silent(session: Session, now: datetime) -> tuple[str, ...]:
    """Mark the satellites that have gone silent as stale, and those that are heard of by polls alone as active.

    A report makes its satellite active by itself. Since when a satellite is silent is when it was last seen.

    Returns:
        The names of those that went silent, sorted.
    """
    row = Satellite
    gone = (
        update(row)
        .where(row.lifecycle == "active", is_silent(now))
        .values(lifecycle="stale", lifecycle_since=row.last_seen)
        .returning(row.name)
        .execution_options(synchronize_session=False)
    )
    names = sorted(session.scalars(gone))
    back = (
        update(row)
        .where(row.lifecycle == "stale", not_(is_silent(now)), row.last_seen.is_not(None))
        .values(lifecycle="active", lifecycle_since=now)
        .execution_options(synchronize_session=False)
    )
    session.execute(back)
    return tuple(names)


def prune_rows(session: Session, now: datetime, audit_kept: timedelta) -> dict[str, int]:
    """Delete rows that nobody needs, a bounded number of each kind; what is left goes the next time.

    Args:
        session: open; committed by the caller.
        now: this moment.
        audit_kept: how long events of the audit log are kept.

    Returns:
        How many of each kind were deleted.
    """
    return {
        "audit_events": audit_view.prune(session, now - audit_kept),
        **dict(_prune_old(session, now)),
    }


def _prune_old(session: Session, now: datetime) -> Iterator[tuple[str, int]]:
    report, event, login = SatelliteReport, OutboxEvent, UserSession
    is_old_report = and_(report.body.is_(None), report.received_at < now - _KEPT_REPORTS)
    for name, model, is_old in (
        ("reports", report, is_old_report),
        ("outbox", event, event.delivered_at < now - _KEPT_DELIVERED),
        ("sessions", login, login.expires_at < now),
    ):
        some = select(model.id).where(is_old).limit(_PRUNED_AT_ONCE)
        done = session.execute(delete(model).where(model.id.in_(some)).execution_options(synchronize_session=False))
        yield name, cast("CursorResult[Any]", done).rowcount


def _never_begun(run: RunFacts, now: datetime) -> str:
    is_due = now - run.since > START_LIMIT
    return f"handed to the site's worker at {_text(run.since)}, and never begun" if is_due else ""


def _lost(run: RunFacts, site: SiteSigns, now: datetime) -> str:
    if _is_contradicted(run, site, now):
        return f"the site reported at {_text(site.reported_at)} that it is in step; no end came"
    newest = max(moment for moment in (run.since, run.last_heartbeat, site.last_seen) if moment is not None)
    if now - newest > SILENCE_LIMIT and site.is_overdue:
        return f"no sign of life of run or site since {_text(newest)}"
    # After an outage polls and reports may come through before the next heartbeat does.
    heart = max((run.last_heartbeat, site.alive_since or run.last_heartbeat)) if run.last_heartbeat else None
    if heart is not None and now - heart > HEARTBEAT_LIMIT:
        return f"the site lives, but the run's last heartbeat was at {_text(run.last_heartbeat)}"
    return ""


def _is_contradicted(run: RunFacts, site: SiteSigns, now: datetime) -> bool:
    if run.flow != REPLICATION or not site.is_in_step or site.reported_at is None:
        return False
    if run.last_heartbeat is not None and now - run.last_heartbeat < RECEIPT_GRACE:
        return False  # it lives: a site may be in step and still mend what it holds
    return site.reported_at > run.since + RECEIPT_GRACE or (
        site.reported_at > run.since and now - site.reported_at > RECEIPT_GRACE
    )


def _text(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "an unknown time"
