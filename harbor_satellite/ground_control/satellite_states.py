"""What publishing satellites reads and records: which generations a satellite may have, and what was published for it.

Every function takes an open ``Session`` that the caller commits, and returns frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, func, select

from harbor_satellite.ground_control import groups
from harbor_satellite.ground_control.models import (
    Group,
    GroupState,
    Satellite,
    SatelliteGroup,
    SatelliteStateHistory,
)
from harbor_satellite.ground_control.satellites import group_names_of, show_satellite
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.names import GroupName, SatelliteName

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

KEPT_SATELLITE_STATES: Final = 100  # of each satellite; a site that lags further shows at least this lag


class GroupPin(NamedTuple):
    """The last published state of one group."""

    group: GroupName
    generation: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class SatelliteDeployment:
    """What Prefect must hold for one satellite."""

    name: SatelliteName
    schedule: str
    """5-field cron"""
    groups: tuple[GroupName, ...]
    """Sorted."""
    state_digest: str | None = None
    """Of the satellite state published last."""


def satellites_of_group(session: Session, group: str) -> tuple[SatelliteName, ...]:
    """Return the names of the satellites that follow a group, sorted; raises ``NotFoundError``."""
    found = groups.satellites_of(session, groups.show_group(session, group))
    return tuple(SatelliteName(satellite.name) for satellite in found)


def satellite_pins(session: Session, satellite: str) -> tuple[GroupPin, ...]:
    """Return the last published state of each of a satellite's groups, sorted; unpublished ones are left out.

    Raises:
        NotFoundError: there is no such satellite.
    """
    row = show_satellite(session, satellite)
    newest = (
        select(GroupState.group_id, func.max(GroupState.generation).label("generation"))
        .group_by(GroupState.group_id)
        .subquery()
    )
    query = (
        select(Group.name, GroupState.generation, GroupState.digest)
        .join(SatelliteGroup, SatelliteGroup.group_id == Group.id)
        .join(newest, newest.c.group_id == Group.id)
        .join(GroupState, (GroupState.group_id == Group.id) & (GroupState.generation == newest.c.generation))
        .where(SatelliteGroup.satellite_id == row.id)
        .order_by(Group.name)
    )
    return tuple(
        GroupPin(GroupName(name), generation, Digest.parse(digest))
        for name, generation, digest in session.execute(query)
    )


def record_satellite_state(session: Session, satellite: str, digest: Digest | str, now: datetime) -> bool:
    """Keep which satellite state the centre published for a satellite.

    Returns:
        Whether it is another than before.

    Raises:
        NotFoundError: there is no such satellite.
    """
    row = show_satellite(session, satellite)
    if row.state_digest == str(digest):
        return False
    row.state_digest = str(digest)
    row.state_published_at = now
    history = SatelliteStateHistory
    session.add(history(satellite_id=row.id, digest=str(digest), published_at=now))
    session.flush()
    mine = history.satellite_id == row.id
    kept = select(history.id).where(mine).order_by(history.id.desc())
    oldest_kept = kept.offset(KEPT_SATELLITE_STATES - 1).limit(1).scalar_subquery()
    session.execute(delete(history).where(mine, history.id < oldest_kept))
    return True


def satellite_deployments(session: Session) -> tuple[SatelliteDeployment, ...]:
    """Return all satellites with what Prefect must hold for each, by name."""
    rows = session.scalars(select(Satellite).order_by(Satellite.name)).all()
    names = group_names_of(session, [row.id for row in rows])
    return tuple(
        SatelliteDeployment(
            SatelliteName(row.name), row.schedule, tuple(map(GroupName, names[row.id])), row.state_digest
        )
        for row in rows
    )
