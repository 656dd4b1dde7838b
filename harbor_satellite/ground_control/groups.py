"""Groups: named sets of artifacts, and which satellites follow them. Use cases over a ``Session``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.models import (
    Group,
    GroupArtifact,
    GroupState,
    RetiredGroup,
    Satellite,
    SatelliteGroup,
)
from harbor_satellite.ground_control.policies import check_priority, read_policy, stored_policy
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import Reference, check_repository, check_tag
from harbor_satellite.state.names import group_name, satellite_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.state.policy import GroupPolicy

logger = logging.getLogger(__name__)

_TYPE_LONGEST: Final = 64  # characters
_REGISTRY_LONGEST: Final = 512  # characters
_EXPIRY_LONGEST: Final = 10 * 366 * 24 * 3600  # seconds


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """One artifact of a group as it was asked for; see ``group_entry``."""

    repository: str
    tags: tuple[str, ...]
    """Sorted; empty for an artifact that is held by digest alone."""
    digest: Digest | None = None
    """None: whatever the tags name when the group is published."""
    labels: Mapping[str, str] | tuple[str, ...] | None = field(default=None, hash=False)
    type: str = "IMAGE"
    deleted: bool = False
    priority: int = 0
    """Higher ones cross the link first."""

    @property
    def harbor_project(self) -> str:
        """The first component of the repository."""
        return self.repository.partition("/")[0]


def group_entry(
    repository: str,
    tags: Iterable[str],
    digest: str,
    labels: Mapping[str, str] | Iterable[str] | None = None,
    type: str = "",  # noqa: A002 - the original's key
    *,
    deleted: bool = False,
    priority: int = 0,
) -> GroupEntry:
    """Check one entry of a group; an empty digest means that the tags decide.

    Raises:
        InvalidInputError: a name, tag, digest or priority breaks its rule, or there is neither tag nor digest.
    """
    entry = GroupEntry(
        repository=check_repository(repository),
        tags=tuple(sorted({check_tag(tag) for tag in tags})),
        digest=Digest.parse(digest) if digest else None,
        labels=labels if labels is None or isinstance(labels, dict) else tuple(labels),
        type=type or "IMAGE",
        deleted=deleted,
        priority=check_priority(priority, repository),
    )
    if not entry.tags and entry.digest is None:
        raise InvalidInputError(f"{repository} has neither tag nor digest")
    if len(entry.type) > _TYPE_LONGEST or not entry.type.isprintable():
        raise InvalidInputError(f"{repository}: type has more than {_TYPE_LONGEST} characters")
    return entry


def sync_group(
    session: Session,
    name: str,
    *,
    registry: str,
    entries: Sequence[GroupEntry],
    expires_after_seconds: int | None = None,
    change_policy: Callable[[GroupPolicy], GroupPolicy] = lambda policy: policy,
    now: datetime,
) -> Group:
    """Create a group or replace all of it, and tell Prefect.

    Args:
        session: open, to be committed by the caller.
        name: of the group.
        registry: where the artifacts are pulled from: ``http(s)://host[:port]`` or ``host[:port]``.
        entries: all of the group's artifacts, each made by ``group_entry``.
        expires_after_seconds: how long a published state may be acted on; None for ever.
        change_policy: makes the policy that the group shall have of the one that it has; see ``changed_policy``.
        now: this moment.

    Raises:
        InvalidInputError: a value breaks its rule, or two entries want one tag with different digests.
    """
    group_name(name)
    _check_registry(registry)
    _check_tags_agree(entries)
    if expires_after_seconds is not None and not 0 < expires_after_seconds <= _EXPIRY_LONGEST:
        raise InvalidInputError(f"expires_after_seconds is not between 1 and {_EXPIRY_LONGEST}")
    group = _locked_or_new(session, name, registry, now)
    group.source_registry = registry
    group.expires_after_seconds = expires_after_seconds
    group.policy = stored_policy(change_policy(read_policy(group.policy)))
    group.updated_at = now
    session.execute(delete(GroupArtifact).where(GroupArtifact.group_id == group.id))
    if entries:
        session.execute(insert(GroupArtifact), [_row(group.id, entry) for entry in dict.fromkeys(entries)])
    outbox.enqueue_group_changed(session, name, now)
    logger.info("group synced group=%s artifacts=%d", name, len(entries))
    return group


def list_groups(session: Session) -> Sequence[Group]:
    """Return all groups by name."""
    return session.scalars(select(Group).order_by(Group.name)).all()


def show_group(session: Session, name: str) -> Group:
    """Return a group; raises ``NotFoundError``, or ``InvalidInputError`` for what cannot be a name."""
    group = session.scalar(select(Group).where(Group.name == group_name(name)))
    if group is None:
        raise NotFoundError(f"no group {name!r}")
    return group


def entries_of(session: Session, group: Group) -> tuple[GroupEntry, ...]:
    """Return a group's artifacts, sorted by repository and tags."""
    rows = session.scalars(select(GroupArtifact).where(GroupArtifact.group_id == group.id))
    return tuple(sorted(map(_entry, rows), key=lambda entry: (entry.repository, entry.tags)))


def projects_of(session: Session, group_ids: Collection[int]) -> dict[int, list[str]]:
    """Return the first components of the repositories of groups, sorted, by the group's id."""
    found: dict[int, set[str]] = {group_id: set() for group_id in group_ids}
    query = (
        select(GroupArtifact.group_id, GroupArtifact.repository)
        .where(GroupArtifact.group_id.in_(group_ids), GroupArtifact.deleted.is_(False))
        .distinct()
    )
    for group_id, repository in session.execute(query):
        found[group_id].add(repository.partition("/")[0])
    return {group_id: sorted(projects) for group_id, projects in found.items()}


def last_generation(session: Session, group: Group) -> int:
    """Return the last generation published under a group's name, before a deletion too; 0 if there is none."""
    newest = session.scalar(select(func.max(GroupState.generation)).where(GroupState.group_id == group.id))
    return max(newest or 0, group.generation_floor)


def delete_group(session: Session, name: str, now: datetime) -> None:
    """Delete a group; its satellites lose its artifacts with their next state.

    Raises:
        NotFoundError: there is no such group.
    """
    session.execute(select(Group.id).where(Group.name == name).with_for_update())  # publishers take turns with this
    group = show_group(session, name)
    members = satellites_of(session, group)
    session.merge(RetiredGroup(name=name, generation=last_generation(session, group)))
    session.delete(group)
    outbox.enqueue_group_changed(session, name, now)
    for satellite in members:
        outbox.enqueue_fleet_changed(session, satellite.name, now)
    logger.info("group deleted group=%s satellites=%d", name, len(members))


def satellites_of(session: Session, group: Group) -> Sequence[Satellite]:
    """Return the satellites that follow a group, by name."""
    query = (
        select(Satellite)
        .join(SatelliteGroup, SatelliteGroup.satellite_id == Satellite.id)
        .where(SatelliteGroup.group_id == group.id)
        .order_by(Satellite.name)
    )
    return session.scalars(query).all()


def add_satellite(session: Session, satellite: str, group: str, now: datetime) -> None:
    """Let a satellite follow a group; again is fine.

    Raises:
        NotFoundError: one of them does not exist.
    """
    add_member(session, _satellite(session, satellite), show_group(session, group), now)
    outbox.enqueue_fleet_changed(session, satellite, now)


def add_member(session: Session, satellite: Satellite, group: Group, now: datetime) -> None:
    """Let a satellite follow a group, both at hand."""
    values = {"satellite_id": satellite.id, "group_id": group.id}
    _insert_or_ignore(session, SatelliteGroup, values)
    outbox.enqueue_group_changed(session, group.name, now)


def remove_satellite(session: Session, satellite: str, group: str, now: datetime) -> None:
    """Let a satellite follow a group no more; again is fine.

    Raises:
        NotFoundError: one of them does not exist.
    """
    row, found = _satellite(session, satellite), show_group(session, group)
    session.execute(
        delete(SatelliteGroup).where(SatelliteGroup.satellite_id == row.id, SatelliteGroup.group_id == found.id)
    )
    outbox.enqueue_group_changed(session, group, now)
    outbox.enqueue_fleet_changed(session, satellite, now)


def _satellite(session: Session, name: str) -> Satellite:
    satellite = session.scalar(select(Satellite).where(Satellite.name == satellite_name(name)))
    if satellite is None:
        raise NotFoundError(f"no satellite {name!r}")
    return satellite


def _locked_or_new(session: Session, name: str, registry: str, now: datetime) -> Group:
    # Two first syncs at once: one inserts, the other waits for it and then replaces.
    retired = session.get(RetiredGroup, name)
    values = {
        "name": name,
        "source_registry": registry,
        "generation_floor": retired.generation if retired else 0,
        "created_at": now,
        "updated_at": now,
    }
    _insert_or_ignore(session, Group, values)
    return session.scalars(select(Group).where(Group.name == name).with_for_update()).one()


def _insert_or_ignore(session: Session, model: type[Group | SatelliteGroup], values: Mapping[str, object]) -> None:
    dialect = session.get_bind().dialect.name
    statement = postgresql.insert(model) if dialect == "postgresql" else sqlite.insert(model)
    session.execute(statement.values(values).on_conflict_do_nothing())


def _row(group_id: int, entry: GroupEntry) -> dict[str, object]:
    return {
        "group_id": group_id,
        "repository": entry.repository,
        "tags": list(entry.tags),
        "digest": str(entry.digest) if entry.digest else None,
        "labels": list(entry.labels) if isinstance(entry.labels, tuple) else entry.labels,
        "type": entry.type,
        "deleted": entry.deleted,
        "priority": entry.priority,
    }


def _entry(row: GroupArtifact) -> GroupEntry:
    return GroupEntry(
        repository=row.repository,
        tags=tuple(row.tags),
        digest=Digest.parse(row.digest) if row.digest else None,
        labels=tuple(row.labels) if isinstance(row.labels, list) else row.labels,
        type=row.type,
        deleted=row.deleted,
        priority=row.priority,
    )


def _check_registry(registry: str) -> None:
    scheme, separator, place = registry.rpartition("://")
    is_known = not separator or scheme in {"http", "https"}
    if not is_known or len(registry) > _REGISTRY_LONGEST:
        raise InvalidInputError(f"not a registry (http(s)://host[:port] or host[:port]): {registry[:200]!r}")
    Reference(place.removesuffix("/"), "any")  # checks host and port; a path or user:password@ breaks its rule


def _check_tags_agree(entries: Iterable[GroupEntry]) -> None:
    seen: dict[tuple[str, str], Digest | None] = {}
    for entry in entries:
        for tag in () if entry.deleted else entry.tags:
            first = seen.setdefault((entry.repository, tag), entry.digest)
            if first != entry.digest:
                named = " and ".join(str(digest or "no digest") for digest in (first, entry.digest))
                raise InvalidInputError(f"{entry.repository}:{tag} is named with {named}")
