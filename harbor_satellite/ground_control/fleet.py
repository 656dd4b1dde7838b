"""What flows read and record: groups to publish, generations published, deployments to keep.

Every function takes an open ``Session`` that the caller commits, and returns frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from harbor_satellite.errors import ConflictError, InvalidInputError
from harbor_satellite.ground_control import groups
from harbor_satellite.ground_control.credentials import grant_projects
from harbor_satellite.ground_control.models import (
    Group,
    GroupState,
    Satellite,
    SatelliteGroup,
    SatelliteStateHistory,
)
from harbor_satellite.ground_control.policies import read_policy
from harbor_satellite.ground_control.satellites import group_names_of, show_satellite
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.artifact import StateArtifact, parse_state_artifact
from harbor_satellite.state.names import GroupName, SatelliteName

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.groups import GroupEntry
    from harbor_satellite.state.policy import GroupPolicy

__all__ = [
    "GroupPin",
    "GroupSpec",
    "SatelliteDeployment",
    "grant_projects",
    "group_spec",
    "list_group_names",
    "lock_unchanged",
    "record_group_state",
    "record_satellite_state",
    "satellite_deployments",
    "satellite_pins",
    "satellites_of_group",
]

KEPT_GENERATIONS: Final = 50  # of each group; enough to roll back over weeks of changes
KEPT_SATELLITE_STATES: Final = 100  # of each satellite; a site that lags further shows at least this lag


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group as it was asked for, beside what was last published of it."""

    name: GroupName
    registry: str
    entries: tuple[GroupEntry, ...]
    """Sorted by repository and tags."""
    expires_after_seconds: int | None
    policy: GroupPolicy
    generation: int
    """The last one published under this name; 0 before the first."""
    published: StateArtifact | None
    published_digest: Digest | None


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


def list_group_names(session: Session) -> tuple[GroupName, ...]:
    """Return the names of all groups, sorted."""
    return tuple(GroupName(name) for name in session.scalars(select(Group.name).order_by(Group.name)))


def group_spec(session: Session, name: str) -> GroupSpec:
    """Return everything that publishing a group needs.

    Raises:
        NotFoundError: there is no such group (any more).
    """
    group = groups.show_group(session, name)
    query = select(GroupState).where(GroupState.group_id == group.id).order_by(GroupState.generation.desc()).limit(1)
    last = session.scalar(query)
    what = f"{name} generation {last.generation} in the database" if last else ""
    return GroupSpec(
        name=GroupName(group.name),
        registry=group.source_registry,
        entries=groups.entries_of(session, group),
        expires_after_seconds=group.expires_after_seconds,
        policy=read_policy(group.policy),
        generation=last.generation if last else group.generation_floor,
        published=parse_state_artifact(last.content.encode(), None, what) if last else None,
        published_digest=Digest.parse(last.digest) if last else None,
    )


def lock_unchanged(session: Session, spec: GroupSpec) -> None:
    """Lock a group's row until the transaction ends, and make sure that the group still is as it was read.

    Raises:
        NotFoundError: the group was deleted meanwhile.
        ConflictError: the group was changed or published meanwhile; read it and resolve it again.
    """
    session.execute(select(Group.id).where(Group.name == spec.name).with_for_update())
    if group_spec(session, spec.name) != spec:
        raise ConflictError(f"group {spec.name} changed while it was resolved")


def record_group_state(  # noqa: PLR0917 - read from left to right it is the row
    session: Session,
    group: str,
    generation: int,
    digest: Digest | str,
    content: bytes | str,
    now: datetime | None = None,
) -> None:
    """Keep a generation that was published; the same again is fine, older ones are dropped past a limit.

    Args:
        session: open; the row is flushed, and committed by the caller.
        group: its name.
        generation: counts from 1.
        digest: what satellite states pin: of the manifest at the source.
        content: canonical JSON of the state artifact.
        now: this moment, if not the clock's.

    Raises:
        ConflictError: this generation was published with another digest: two publishers ran at once.
        NotFoundError: there is no such group (any more).
    """
    if generation < 1:
        raise InvalidInputError(f"generation {generation} of group {group!r} is not positive")
    row = groups.show_group(session, group)
    at_generation = select(GroupState).where(GroupState.group_id == row.id, GroupState.generation == generation)
    existing = session.scalar(at_generation)
    if existing is None:
        text = content.decode() if isinstance(content, bytes) else content
        created_at = now or datetime.now(UTC)
        state = GroupState(
            group_id=row.id, generation=generation, digest=str(digest), content=text, created_at=created_at
        )
        _add_state(session, state, group)
    elif existing.digest != str(digest):
        raise ConflictError(f"group {group} generation {generation} is {existing.digest}, not {digest}")


def _add_state(session: Session, state: GroupState, group: str) -> None:
    session.add(state)
    try:
        session.flush()
    except IntegrityError as error:
        message = f"group {group} generation {state.generation} was published by another at the same time"
        raise ConflictError(message) from error
    too_old = GroupState.generation <= state.generation - KEPT_GENERATIONS
    session.execute(delete(GroupState).where(GroupState.group_id == state.group_id, too_old))


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
