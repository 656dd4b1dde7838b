"""What a satellite must have at the source and in Prefect, told from the rows; bulk queries, whatever the fleet's size.

What must not live here: Prefect.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from harbor_satellite.ground_control.groups import generations, groups
from harbor_satellite.ground_control.models import Credential, RetiredAccount, Satellite, SatelliteGroup
from harbor_satellite.ground_control.rollouts.pins import chunks
from harbor_satellite.ground_control.satellites import configs
from harbor_satellite.ground_control.satellites.accounts import account_name
from harbor_satellite.ground_control.satellites.credentials import REVOKED
from harbor_satellite.ground_control.satellites.satellite_states import SatelliteDeployment
from harbor_satellite.ground_control.satellites.satellites import group_names_of
from harbor_satellite.state.names import STATE_PROJECT, GroupName, SatelliteName

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.orm import Session

_AT_ONCE: Final = 1000  # satellites in one statement


@dataclass(frozen=True, slots=True)
class WantedDeployment(SatelliteDeployment):
    """What Prefect must hold for one satellite, as the site itself or else its configs have it."""

    timezone: str = "UTC"
    """IANA name; of the schedule."""


@dataclass(frozen=True, slots=True)
class GrantDifference:
    """How far a credential's permissions are from what its satellite's groups need."""

    satellite: str
    missing: frozenset[str]
    """Projects."""
    surplus: frozenset[str]
    """Projects."""


def wanted_deployments(session: Session, names: Collection[str] | None = None) -> tuple[WantedDeployment, ...]:
    """Return what Prefect must hold, by name: nothing for a satellite that is revoked.

    Args:
        session: reads only.
        names: of these satellites; None: of all.
    """
    own = (Satellite.own_schedule, Satellite.own_timezone)
    query = select(Satellite.id, Satellite.name, Satellite.schedule, Satellite.state_digest, *own)
    query = query.where(Satellite.lifecycle != REVOKED).order_by(Satellite.name)
    rows = session.execute(query if names is None else query.where(Satellite.name.in_(names))).all()
    wanted = []
    for start in range(0, len(rows), _AT_ONCE):
        batch = rows[start : start + _AT_ONCE]
        ids = [row.id for row in batch]
        members, told = group_names_of(session, ids), configs.effective_configs(session, ids)
        for row in batch:
            config = told.get(row.id)  # none if it was deleted between the two looks
            wanted.append(
                WantedDeployment(
                    name=SatelliteName(row.name),
                    schedule=row.own_schedule or (config and config.schedule) or row.schedule,
                    groups=tuple(map(GroupName, members[row.id])),
                    state_digest=row.state_digest,
                    timezone=row.own_timezone or (config and config.timezone) or "UTC",
                )
            )
    return tuple(wanted)


def grant_differences(session: Session) -> tuple[GrantDifference, ...]:
    """Return the satellites with a credential that may not pull from exactly what their groups need, by name."""
    followed: dict[int, set[int]] = defaultdict(set)
    for satellite_id, group_id in session.execute(select(SatelliteGroup.satellite_id, SatelliteGroup.group_id)):
        followed[satellite_id].add(group_id)
    used = {group_id for group_ids in followed.values() for group_id in group_ids}
    projects = {key: value for chunk in chunks(used) for key, value in groups.projects_of(session, chunk).items()}
    named = generations.followed_projects(session)
    query = (
        select(Satellite.id, Satellite.name, Credential.granted_projects)
        .join(Credential, Credential.satellite_id == Satellite.id)
        .where(Credential.revoked_at.is_(None), Credential.superseded_at.is_(None))
        .order_by(Satellite.name, Credential.id)
    )
    found = []
    for satellite_id, name, granted in session.execute(query):
        wanted = {STATE_PROJECT, *named.get(satellite_id, ())}
        wanted.update(*(projects.get(group_id, ()) for group_id in followed[satellite_id]))
        if wanted != set(granted):
            found.append(GrantDifference(name, frozenset(wanted - set(granted)), frozenset(set(granted) - wanted)))
    return tuple(found)


def satellites_to_grant(differences: Iterable[GrantDifference], absent: Collection[str]) -> tuple[str, ...]:
    """Return the satellites whose permissions can be brought in step, by name.

    Args:
        differences: of all satellites.
        absent: projects that the source does not have; nobody can be let in there, however often it is asked.
    """
    return tuple(sorted({item.satellite for item in differences if item.surplus or item.missing - set(absent)}))


def next_account(session: Session, satellite: str) -> str | None:
    """Return the name of the account that a satellite's claim will make; None if it has one, or is no more."""
    row = session.scalar(select(Satellite).where(Satellite.name == satellite))
    if row is None or row.credential_serial:
        return None
    name = account_name(row.name, 0)
    return None if session.get(RetiredAccount, name) else name
