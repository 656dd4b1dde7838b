"""What publishing satellites reads and records: which generations a satellite may have, and what was published for it.

Every function takes an open ``Session`` that the caller commits, and returns frozen values.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, delete, select

from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.groups.generations import followed_generation, newest_generations
from harbor_satellite.ground_control.models import (
    GenerationPin,
    Group,
    GroupState,
    Satellite,
    SatelliteGroup,
    SatelliteStateHistory,
)
from harbor_satellite.ground_control.rollouts.pins import chunks
from harbor_satellite.ground_control.satellites import configs
from harbor_satellite.ground_control.satellites.satellites import group_names_of, show_satellite
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.config import SatelliteConfig
from harbor_satellite.state.names import GroupName, SatelliteName

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy import Row, Select
    from sqlalchemy.orm import Session

KEPT_SATELLITE_STATES: Final = 100  # of each satellite; a site that lags further shows at least this lag
_NAMES_AT_ONCE: Final = 1000  # in one statement
_NOTHING_SAID: Final = SatelliteConfig()


class GroupPin(NamedTuple):
    """The generation of one group that a satellite may have."""

    group: GroupName
    generation: int
    digest: Digest
    is_rollback: bool = False
    """Whether the site must be told to go back, since it may have had a later one."""


@dataclass(frozen=True, slots=True)
class WantedState:
    """What a satellite's state shall say, beside what was published for it last."""

    satellite: SatelliteName
    state_digest: str | None
    serial: int
    """Of the state that was published last; 0 before the first."""
    settings: SatelliteConfig | None
    """How the site shall work; None: nothing was said."""
    pins: tuple[GroupPin, ...]
    """Sorted; groups of which it follows nothing are left out."""
    unpublished: tuple[GroupName, ...] = ()
    """Groups of which there is nothing yet that anybody could follow."""
    dropped: tuple[str, ...] = ()
    """Groups and the generations that it follows but that are no longer kept."""


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
    """Return the generation of each of a satellite's groups that it may have, sorted; see ``pins``.

    Groups of which it may have nothing yet are left out.

    Raises:
        NotFoundError: there is no such satellite.
    """
    row = show_satellite(session, satellite)
    (wanted,) = wanted_states(session, [row.id])
    return wanted.pins


def wanted_states(session: Session, satellite_ids: Collection[int]) -> tuple[WantedState, ...]:
    """Return what the states of satellites shall say, by name; a few queries for each thousand of them."""
    query = _wanted_query()
    states = []
    for chunk in chunks(satellite_ids):
        settings = configs.effective_configs(session, chunk)
        found = session.execute(query.where(Satellite.id.in_(chunk)))
        for satellite_id, rows in itertools.groupby(found, key=lambda row: row.satellite_id):
            config = settings[satellite_id]
            states.append(_wanted_state(list(rows), None if config == _NOTHING_SAID else config))
    return tuple(sorted(states, key=lambda state: state.satellite))


def satellite_ids_of(session: Session, names: Collection[str]) -> tuple[int, ...]:
    """Return the ids of the satellites of these names that there are."""
    wanted, found = sorted(names), list[int]()
    for start in range(0, len(wanted), _NAMES_AT_ONCE):
        batch = wanted[start : start + _NAMES_AT_ONCE]
        found += session.scalars(select(Satellite.id).where(Satellite.name.in_(batch)))
    return tuple(found)


def _wanted_query() -> Select[Any]:
    newest = newest_generations()
    generation = followed_generation(newest)
    is_pin = (GenerationPin.group_id == Group.id) & (GenerationPin.satellite_id == Satellite.id)
    is_state = (GroupState.group_id == Group.id) & (GroupState.generation == generation)
    return (
        select(
            Satellite.id.label("satellite_id"),
            Satellite.name.label("satellite"),
            Satellite.state_digest,
            Satellite.state_serial,
            Group.name.label("group_name"),
            newest.c.generation.label("newest"),
            generation.label("generation"),
            GroupState.digest.label("digest"),
            GenerationPin.is_rollback,
        )
        .join(SatelliteGroup, SatelliteGroup.satellite_id == Satellite.id, isouter=True)
        .join(Group, Group.id == SatelliteGroup.group_id, isouter=True)
        .join(newest, newest.c.group_id == Group.id, isouter=True)
        .join(GenerationPin, is_pin, isouter=True)
        .join(GroupState, is_state, isouter=True)
        .order_by(Satellite.id, Group.name)
    )


def _wanted_state(rows: list[Row[Any]], settings: SatelliteConfig | None) -> WantedState:
    first = rows[0]
    members = sorted((row for row in rows if row.group_name is not None), key=lambda row: row.group_name)
    return WantedState(
        satellite=SatelliteName(first.satellite),
        state_digest=first.state_digest,
        serial=first.state_serial,
        settings=settings,
        pins=tuple(
            GroupPin(
                GroupName(row.group_name),
                row.generation,
                Digest.parse(row.digest),
                # No site refuses the newest: then there is nothing to be told.
                bool(row.is_rollback) and row.generation < row.newest,
            )
            for row in members
            if row.digest is not None
        ),
        unpublished=tuple(GroupName(row.group_name) for row in members if row.newest is None),
        dropped=tuple(
            f"{row.group_name} generation {row.generation}" for row in members if row.generation and row.digest is None
        ),
    )


def record_satellite_state(
    session: Session, satellite: str, digest: Digest | str, now: datetime, *, serial: int | None = None
) -> bool:
    """Keep which satellite state the centre published for a satellite, and since when the site is behind.

    Args:
        session: open; committed by the caller.
        satellite: its name.
        digest: of the state's manifest.
        now: this moment.
        serial: of the state; None: as it was.

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
    row.state_serial = row.state_serial if serial is None else serial
    if row.applied_digest == row.state_digest:
        row.behind_since = None
    elif row.behind_since is None:
        row.behind_since = now
    history = SatelliteStateHistory
    session.add(history(satellite_id=row.id, digest=str(digest), published_at=now))
    session.flush()
    mine = history.satellite_id == row.id
    kept = select(history.id).where(mine).order_by(history.id.desc())
    oldest_kept = kept.offset(KEPT_SATELLITE_STATES - 1).limit(1).scalar_subquery()
    session.execute(delete(history).where(mine, history.id < oldest_kept))
    return True


def ask_for_runs(session: Session, names: Collection[str], now: datetime) -> int:
    """Tell the sites of satellites, once this transaction commits, that there is something to do.

    Nobody is told before there is a site and a state: whichever of the two comes second calls this again.

    Returns:
        How many are told that were not going to be anyway.
    """
    there, asked = and_(Satellite.credential_serial > 0, Satellite.state_digest.is_not(None)), sorted(names)
    told = list[str]()
    for start in range(0, len(asked), _NAMES_AT_ONCE):
        batch = asked[start : start + _NAMES_AT_ONCE]
        told += session.scalars(select(Satellite.name).where(Satellite.name.in_(batch), there))
    return outbox.enqueue_satellites_changed(session, told, now)


def satellite_deployments(session: Session, group: str | None = None) -> tuple[SatelliteDeployment, ...]:
    """Return all satellites, or those of one group, with what Prefect must hold for each, by name.

    Raises:
        NotFoundError: there is no such group.
    """
    query = select(Satellite.id, Satellite.name, Satellite.schedule, Satellite.state_digest).order_by(Satellite.name)
    if group is not None:
        query = query.join(SatelliteGroup, SatelliteGroup.satellite_id == Satellite.id).where(
            SatelliteGroup.group_id == groups.show_group(session, group).id
        )
    rows = session.execute(query).all()
    names = {key: found for chunk in chunks(row.id for row in rows) for key, found in _names(session, chunk)}
    return tuple(
        SatelliteDeployment(
            SatelliteName(row.name), row.schedule, tuple(map(GroupName, names[row.id])), row.state_digest
        )
        for row in rows
    )


def _names(session: Session, satellite_ids: Collection[int]) -> Iterable[tuple[int, list[str]]]:
    return group_names_of(session, satellite_ids).items()
