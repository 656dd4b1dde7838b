"""What publishing a group reads and records: the group as it was asked for, and its generations.

Every function takes an open ``Session`` that the caller commits, and returns frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from harbor_satellite.errors import ConflictError, InvalidInputError
from harbor_satellite.ground_control.groups import generations, groups, rule_members, selector_rows
from harbor_satellite.ground_control.groups.policies import read_policy
from harbor_satellite.ground_control.models import Group, GroupState
from harbor_satellite.ground_control.rollouts import pins
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.artifact import StateArtifact, parse_state_artifact
from harbor_satellite.state.names import GroupName

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.groups.groups import GroupEntry
    from harbor_satellite.ground_control.groups.selectors import Selector
    from harbor_satellite.state.policy import GroupPolicy

KEPT_GENERATIONS: Final = 50  # of each group; enough to roll back over weeks of changes


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group as it was asked for, beside what was last published of it."""

    name: GroupName
    registry: str
    entries: tuple[GroupEntry, ...]
    """Listed by hand; sorted by repository and tags."""
    expires_after_seconds: int | None
    policy: GroupPolicy
    generation: int
    """The last one published under this name; 0 before the first."""
    published: StateArtifact | None
    published_digest: Digest | None
    members: tuple[GroupEntry, ...] = ()
    """Pushed by a replication rule; sorted by repository and tags."""
    selectors: tuple[Selector, ...] = ()
    """In the order in which they were given."""


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
        members=rule_members.members_of(session, group.id),
        selectors=selector_rows.selectors_of(session, group.id),
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
            group_id=row.id,
            generation=generation,
            digest=str(digest),
            content=text,
            projects=generations.projects_in(text),
            created_at=created_at,
        )
        _add_state(session, state, group)
        if row.is_staged and row.released_generation is None:
            row.released_generation = generation  # there is nothing yet that a rollout could leave standing
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
    is_free = GroupState.generation.not_in(pins.needed_generations(session, state.group_id))
    session.execute(delete(GroupState).where(GroupState.group_id == state.group_id, too_old, is_free))
