"""In which state each satellite is, as SQL: one answer for lists, counts and metrics alike.

The states exclude each other; the first that applies holds. What must not live here: anything that loads rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sqlalchemy import and_, case, extract, func, null, or_

from harbor_satellite.ground_control.models import GenerationPin, Satellite, SatelliteGroup
from harbor_satellite.ground_control.satellites.satellites import (
    MISSED_REPORTS_UNTIL_STALE,
    STALE_WITHOUT_INTERVAL_SECONDS,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement

FleetState = Literal["revoked", "never_seen", "stale", "waiting", "in_step", "rolled_back", "failing", "behind"]
FLEET_STATES: Final[tuple[FleetState, ...]] = get_args(FleetState)
"""``waiting``: nothing is published for it yet; ``rolled_back``: by an operator at the site, on purpose."""


def state_of(now: datetime) -> ColumnElement[str]:
    """Return the expression that gives a satellite's state at this moment."""
    row = Satellite
    return case(
        (row.lifecycle == "revoked", "revoked"),
        (row.last_seen.is_(None), "never_seen"),
        (is_silent(now), "stale"),
        (row.state_digest.is_(None), "waiting"),
        (is_in_step(), "in_step"),
        (row.is_rolled_back, "rolled_back"),
        (row.failure_count > 0, "failing"),
        else_="behind",
    )


def is_silent(now: datetime) -> ColumnElement[bool]:
    """Return the expression that tells whether a satellite that was seen is overdue; the rule of ``is_stale``."""
    row = Satellite
    allowed = func.coalesce(row.report_interval_seconds * MISSED_REPORTS_UNTIL_STALE, STALE_WITHOUT_INTERVAL_SECONDS)
    return and_(row.last_seen.is_not(None), extract("epoch", row.last_seen) + allowed < now.timestamp())


def is_in_step() -> ColumnElement[bool]:
    """Return the expression that tells whether a satellite is on what was last published for it."""
    return and_(Satellite.state_digest.is_not(None), Satellite.applied_digest == Satellite.state_digest)


def lagging_since() -> ColumnElement[Any]:
    """Return the expression that gives since when a satellite is not in step; null: it is, or nothing is published."""
    row = Satellite
    is_none = or_(row.state_digest.is_(None), is_in_step())
    return case((is_none, null()), else_=func.coalesce(row.behind_since, row.state_published_at))


def is_pin_of_member() -> ColumnElement[bool]:
    """Return the condition that joins a member of a group to its pin."""
    return and_(
        GenerationPin.satellite_id == SatelliteGroup.satellite_id, GenerationPin.group_id == SatelliteGroup.group_id
    )
