"""Reports that say nothing new: most of what a fleet sends, so many of them are written by one statement.

What must not live here: what becomes of news (``reports.py``), and when to write (``report_queue.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, bindparam, case, cast, column, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from harbor_satellite.ground_control.fleet.report_values import check_report, figures_of, fingerprint_of, made_at
from harbor_satellite.ground_control.models import Credential, Satellite
from harbor_satellite.ground_control.satellites.schedules import parse_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session
    from sqlalchemy.sql.dml import ReturningUpdate

    from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity
    from harbor_satellite.state.wire import StatusReport

_SATELLITES: Final[Any] = Satellite.__table__
_ALWAYS: Final = (
    "last_seen",
    "report_received_at",
    "reported_at",
    "report_interval_seconds",
    "activity",
    "bytes_today",
    "bytes_this_month",
    "storage_free_bytes",
    "link_bytes_per_second",
)
"""The columns of a satellite that every report changes."""


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A report of which everything can be stored, and what of it is written whether it is news or not."""

    identity: SatelliteIdentity
    report: StatusReport
    received_at: datetime
    fingerprint: str
    always: Mapping[str, Any]


def checked_report(identity: SatelliteIdentity, report: StatusReport, now: datetime) -> CheckedReport:
    """Check a report of an authenticated satellite. Pure.

    Raises:
        InvalidInputError: an interval, digest, count or time that cannot be.
    """
    interval = parse_interval(report.state_report_interval)
    check_report(report)
    always = {
        "last_seen": now,
        "report_received_at": now,
        "reported_at": made_at(report, now),
        "report_interval_seconds": interval,
        **figures_of(report),
    }
    return CheckedReport(identity, report, now, fingerprint_of(report, identity.credential_id), always)


def note_nothing_new(session: Session, reports: Sequence[CheckedReport]) -> dict[int, bool]:
    """Write what every report changes, for those that say nothing new; of each satellite at most one.

    Returns:
        Those satellites, by id, and whether each is to renew its credential. Of the others nothing was written.
    """
    connection = session.connection()
    rows = [_parameters(one) for one in reports]
    # One needs no join; and on SQLite a statement costs little, since there is no network.
    if len(rows) == 1 or connection.dialect.name != "postgresql":
        found = [connection.execute(_ONE, row).one_or_none() for row in rows]
        return {row[0]: bool(row[1]) for row in found if row is not None}
    columns = {name: [row[name] for row in rows] for name in (*_WHO, *_ALWAYS)}
    return {row[0]: bool(row[1]) for row in connection.execute(_MANY, columns)}


def _parameters(checked: CheckedReport) -> dict[str, Any]:
    who = checked.identity
    return {
        "satellite_id": who.satellite_id,
        "credential_id": who.credential_id,
        "fingerprint": checked.fingerprint,
        **checked.always,
    }


_WHO: Final[Mapping[str, Any]] = {
    "satellite_id": _SATELLITES.c.id.type,
    "credential_id": BigInteger(),
    "fingerprint": _SATELLITES.c.report_fingerprint.type,
}


def _update(given: Mapping[str, Any], *more: Any) -> ReturningUpdate[Any]:
    columns = _SATELLITES.c
    is_renewal_due = select(Credential.is_renewal_due).where(Credential.id == given["credential_id"])
    # The centre may have gone back to publishing what the site is on.
    behind_since = case((columns.applied_digest == columns.state_digest, None), else_=columns.behind_since)
    return (
        update(_SATELLITES)
        .where(
            columns.id == given["satellite_id"],
            columns.report_fingerprint == given["fingerprint"],
            columns.lifecycle == "active",
            columns.reported_at <= given["reported_at"],
            *more,
        )
        .values({columns[name]: given[name] for name in _ALWAYS} | {columns.behind_since: behind_since})
        .returning(columns.id, is_renewal_due.correlate_except(Credential).scalar_subquery())
    )


def _update_many() -> ReturningUpdate[Any]:
    types = {**_WHO, **{name: _SATELLITES.c[name].type for name in _ALWAYS}}
    arrays = [cast(bindparam(name), ARRAY(kind)) for name, kind in types.items()]
    given = func.unnest(*arrays).table_valued(*(column(name, kind) for name, kind in types.items()), name="given")
    given = given.render_derived()
    # In the order of their ids, so that two writers never wait for each other's rows.
    locked = (
        select(_SATELLITES.c.id)
        .where(_SATELLITES.c.id == func.any(arrays[0]))
        .order_by(_SATELLITES.c.id)
        .with_for_update(key_share=True)
        .cte("locked")
    )
    return _update({name: given.c[name] for name in types}, _SATELLITES.c.id == locked.c.id)


# Built once, and not by way of the ORM.
_ONE: Final = _update({name: bindparam(name) for name in (*_WHO, *_ALWAYS)})
_MANY: Final = _update_many()
