"""Groups: named sets of artifacts, and which satellites follow them. Use cases over a ``Session``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy import Select, delete, func, insert, select, union
from sqlalchemy.dialects import postgresql, sqlite

from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups.group_entries import (
    GroupEntry,
    check_tags_agree,
    entry_row,
    group_entry,
    row_entry,
)
from harbor_satellite.ground_control.groups.policies import read_policy, stored_policy
from harbor_satellite.ground_control.models import (
    GenerationPin,
    Group,
    GroupArtifact,
    GroupSelector,
    GroupState,
    RetiredGroup,
    RuleMember,
    Satellite,
    SatelliteGroup,
)
from harbor_satellite.oci.reference import Reference
from harbor_satellite.state.names import group_name, satellite_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.state.policy import GroupPolicy

__all__ = [
    "GroupEntry",
    "add_member",
    "add_satellite",
    "check_expiry",
    "check_registry",
    "delete_group",
    "ensure_group",
    "entries_of",
    "group_entry",
    "last_generation",
    "list_groups",
    "projects_of",
    "projects_of_groups",
    "remove_satellite",
    "satellites_of",
    "show_group",
    "sync_group",
]

logger = logging.getLogger(__name__)

_REGISTRY_LONGEST: Final = 512  # characters
_EXPIRY_LONGEST: Final = 10 * 366 * 24 * 3600  # seconds


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
    check_registry(registry)
    check_tags_agree(entries)
    check_expiry(expires_after_seconds)
    group = ensure_group(session, name, registry, now)
    group.source_registry = registry
    group.expires_after_seconds = expires_after_seconds
    group.policy = stored_policy(change_policy(read_policy(group.policy)))
    group.updated_at = now
    session.execute(delete(GroupArtifact).where(GroupArtifact.group_id == group.id))
    if entries:
        session.execute(insert(GroupArtifact), [entry_row(group.id, entry) for entry in dict.fromkeys(entries)])
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
    return tuple(sorted(map(row_entry, rows), key=lambda entry: (entry.repository, entry.tags)))


def projects_of(session: Session, group_ids: Collection[int]) -> dict[int, list[str]]:
    """Return the first components of the repositories of groups, sorted, by the group's id; see the function below."""
    found: dict[int, set[str]] = {group_id: set() for group_id in group_ids}
    for group_id, project in _projects(session, group_ids):
        found[group_id].add(project)
    return {group_id: sorted(projects) for group_id, projects in found.items()}


def projects_of_groups(session: Session, group_ids: Collection[int] | Select[tuple[int]]) -> frozenset[str]:
    """Return the projects that groups may pull from, whichever way their artifacts come.

    Args:
        session: open.
        group_ids: the groups' ids, or a query that gives them.
    """
    return frozenset(project for _, project in _projects(session, group_ids))


def _projects(session: Session, group_ids: Collection[int] | Select[tuple[int]]) -> Iterator[tuple[int, str]]:
    listed, pushed = GroupArtifact, RuleMember
    explicit = select(listed.group_id, listed.repository).where(
        listed.group_id.in_(group_ids), listed.deleted.is_(False)
    )
    selected = select(GroupSelector.group_id, GroupSelector.project).where(GroupSelector.group_id.in_(group_ids))
    members = select(pushed.group_id, pushed.repository).where(
        pushed.group_id.in_(group_ids), pushed.tag != pushed.digest
    )
    for group_id, repository in session.execute(union(explicit, selected, members)):
        yield group_id, repository.partition("/")[0]


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
    if group.is_staged and session.get(SatelliteGroup, (satellite.id, group.id)) is None:
        _join_staged(session, group, values, now)
    _insert_or_ignore(session, SatelliteGroup, values)
    outbox.enqueue_group_changed(session, group.name, now)


def _join_staged(session: Session, group: Group, values: Mapping[str, int], now: datetime) -> None:
    """Mark what a staged group has released, if there is a later generation that the site may know from before.

    Sites remember how far they were in groups that they left, and refuse what is older without the mark.
    """
    session.refresh(group, with_for_update=True)  # rollouts take turns with this
    newest = session.scalar(select(func.max(GroupState.generation)).where(GroupState.group_id == group.id)) or 0
    if group.is_staged and 0 < (group.released_generation or 0) < newest:
        pin = {"generation": group.released_generation, "is_rollback": True, "is_held": False, "updated_at": now}
        _insert_or_ignore(session, GenerationPin, {**values, **pin})


def remove_satellite(session: Session, satellite: str, group: str, now: datetime) -> None:
    """Let a satellite follow a group no more, and forget where it was pinned; again is fine.

    Raises:
        NotFoundError: one of them does not exist.
    """
    row, found = _satellite(session, satellite), show_group(session, group)
    for model in (GenerationPin, SatelliteGroup):
        session.execute(delete(model).where(model.satellite_id == row.id, model.group_id == found.id))
    outbox.enqueue_group_changed(session, group, now)
    outbox.enqueue_fleet_changed(session, satellite, now)


def _satellite(session: Session, name: str) -> Satellite:
    satellite = session.scalar(select(Satellite).where(Satellite.name == satellite_name(name)))
    if satellite is None:
        raise NotFoundError(f"no satellite {name!r}")
    return satellite


def ensure_group(session: Session, name: str, registry: str, now: datetime) -> Group:
    """Return a group, made if it is not there, with its row locked until the transaction ends."""
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


def _insert_or_ignore(
    session: Session, model: type[Group | GenerationPin | SatelliteGroup], values: Mapping[str, object]
) -> None:
    dialect = session.get_bind().dialect.name
    statement = postgresql.insert(model) if dialect == "postgresql" else sqlite.insert(model)
    session.execute(statement.values(values).on_conflict_do_nothing())


def check_expiry(expires_after_seconds: int | None) -> None:
    """Raise ``InvalidInputError`` for a life that no state may have; None is for ever."""
    if expires_after_seconds is not None and not 0 < expires_after_seconds <= _EXPIRY_LONGEST:
        raise InvalidInputError(f"expires_after_seconds is not between 1 and {_EXPIRY_LONGEST}")


def check_registry(registry: str) -> None:
    """Raise ``InvalidInputError`` for what is not a registry's URL or address."""
    scheme, separator, place = registry.rpartition("://")
    is_known = not separator or scheme in {"http", "https"}
    if not is_known or len(registry) > _REGISTRY_LONGEST:
        raise InvalidInputError(f"not a registry (http(s)://host[:port] or host[:port]): {registry[:200]!r}")
    Reference(place.removesuffix("/"), "any")  # checks host and port; a path or user:password@ breaks its rule
