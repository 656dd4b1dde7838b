"""Which generation of a group each satellite follows, and moving that.

A row of ``generation_pins`` wins; else a staged group's released generation; else the newest. A pin that goes back
carries a mark, since sites refuse generations that go back by themselves. The mark stays as long as the pin is older
than the newest generation: that is the only bound on what the site may have had that the centre knows.

Every function takes an open ``Session`` that the caller commits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, delete, func, or_, select, union
from sqlalchemy.dialects import postgresql, sqlite

from harbor_satellite.errors import ConflictError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.groups.generations import followed_generation, newest_generations
from harbor_satellite.ground_control.models import (
    GenerationPin,
    Group,
    GroupState,
    Rollout,
    RolloutSatellite,
    Satellite,
    SatelliteGroup,
)
from harbor_satellite.ground_control.satellites.satellites import show_satellite

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import CompoundSelect
    from sqlalchemy.orm import Session

ACTIVE_STATES: Final = ("running", "soaking", "paused")
"""Of a rollout that moves, or may move, satellites."""
_CHUNK: Final = 1000  # ids in one statement; SQLite takes 32,766 parameters


@dataclass(frozen=True, slots=True)
class Followed:
    """What one satellite follows of one group."""

    generation: int
    """0: nothing of this group yet."""
    newest: int
    """The group's newest generation that is kept; 0: none."""
    is_pinned: bool = False
    is_rollback: bool = False
    is_held: bool = False


def followed(session: Session, group_id: int, satellite_ids: Collection[int]) -> dict[int, Followed]:
    """Return what satellites follow of a group, by their ids; those that are not its members are left out."""
    newest = newest_generations()
    query = (
        select(
            SatelliteGroup.satellite_id,
            followed_generation(newest),
            func.coalesce(newest.c.generation, 0),
            GenerationPin.generation.is_not(None),
            func.coalesce(GenerationPin.is_rollback, False),
            func.coalesce(GenerationPin.is_held, False),
        )
        .join(Group, Group.id == SatelliteGroup.group_id)
        .join(newest, newest.c.group_id == Group.id, isouter=True)
        .join(
            GenerationPin,
            (GenerationPin.group_id == Group.id) & (GenerationPin.satellite_id == SatelliteGroup.satellite_id),
            isouter=True,
        )
        .where(SatelliteGroup.group_id == group_id)
    )
    return {
        row[0]: Followed(row[1], row[2], bool(row[3]), bool(row[4]), bool(row[5]))
        for chunk in chunks(satellite_ids)
        for row in session.execute(query.where(SatelliteGroup.satellite_id.in_(chunk)))
    }


def move_pins(
    session: Session, group_id: int, targets: Mapping[int, int], now: datetime, *, is_held: bool = False
) -> None:
    """Pin satellites to generations of a group; where that goes back, or went back before, the pin is marked.

    Args:
        session: open; committed by the caller.
        group_id: of the group.
        targets: the satellites' ids, each with the generation that it shall follow; 0: nothing of this group.
        now: this moment.
        is_held: no rollout shall move them.
    """
    before = followed(session, group_id, targets)
    rows = [
        {
            "satellite_id": satellite_id,
            "group_id": group_id,
            "generation": generation,
            "is_rollback": satellite_id in before and needs_mark(before[satellite_id], generation),
            "is_held": is_held,
            "updated_at": now,
        }
        for satellite_id, generation in sorted(targets.items())
    ]
    if rows:
        _upsert(session, rows)


def needs_mark(before: Followed, generation: int) -> bool:
    """Tell whether a site that followed ``before`` takes this generation only if it is told to go back."""
    return generation < before.generation or (before.is_rollback and generation < before.newest)


def release_generation(session: Session, group: Group, generation: int, now: datetime) -> None:
    """Let all satellites of a group follow a generation: the group's own from now on, pins only where they differ.

    Held pins stay; all others come along. Where the group goes back, satellites without a pin get one that says so.
    """
    is_back = (group.released_generation or 0) > generation
    pin = (GenerationPin.group_id == group.id) & (GenerationPin.satellite_id == SatelliteGroup.satellite_id)
    # Those that no rollout had in its list have come, or come back, since it was planned.
    is_elsewhere = and_(GenerationPin.is_held.is_(False), GenerationPin.generation != generation)
    is_moved = or_(is_elsewhere, GenerationPin.satellite_id.is_(None)) if is_back else is_elsewhere
    query = select(SatelliteGroup.satellite_id).join(GenerationPin, pin, isouter=True)
    moved = session.scalars(query.where(SatelliteGroup.group_id == group.id, is_moved))
    move_pins(session, group.id, dict.fromkeys(moved, generation), now)
    group.released_generation = generation
    is_newest = newest_generation(session, group.id) <= generation
    done = delete(GenerationPin).where(
        GenerationPin.group_id == group.id, GenerationPin.generation == generation, GenerationPin.is_held.is_(False)
    )
    # A marked pin stays as long as it says something: without its mark the site would refuse what it is on.
    session.execute(done if is_newest else done.where(GenerationPin.is_rollback.is_(False)))


def hold_pin(session: Session, satellite: str, group: str, generation: int, now: datetime) -> Followed:
    """Pin one satellite to a generation of one of its groups, until the pin is let go.

    Returns:
        What it followed before.

    Raises:
        NotFoundError: there is no such satellite or group, it does not follow the group, or the generation is not kept.
    """
    row, found, before = _member(session, satellite, group)
    if generation:
        state_digest_of(session, found, generation)
    move_pins(session, found.id, {row.id: generation}, now, is_held=True)
    _tell(session, row, found, now)
    return before


def let_go(session: Session, satellite: str, group: str, now: datetime) -> Followed:
    """Take an operator's pin away: the satellite follows its group again; none is fine.

    Returns:
        What it followed before.

    Raises:
        NotFoundError: there is no such satellite or group, or it does not follow the group.
    """
    row, found, before = _member(session, satellite, group)
    if before.is_pinned:
        own = (found.released_generation or 0) if found.is_staged else before.newest
        session.execute(
            delete(GenerationPin).where(GenerationPin.satellite_id == row.id, GenerationPin.group_id == found.id)
        )
        if needs_mark(before, own):
            rows = [{"satellite_id": row.id, "group_id": found.id, "generation": own, "is_rollback": True}]
            _upsert(session, [{**rows[0], "is_held": False, "updated_at": now}])
        _tell(session, row, found, now)
    return before


def state_digest_of(session: Session, group: Group, generation: int) -> str:
    """Return the digest of a generation that is still kept; raises ``NotFoundError`` for any other."""
    query = select(GroupState.digest).where(GroupState.group_id == group.id, GroupState.generation == generation)
    digest = session.scalar(query)
    if digest is None:
        raise NotFoundError(f"generation {generation} of group {group.name} is not kept, or was never published")
    return digest


def newest_generation(session: Session, group_id: int) -> int:
    """Return a group's newest generation that is kept; 0 if there is none."""
    return session.scalar(select(func.max(GroupState.generation)).where(GroupState.group_id == group_id)) or 0


def needed_generations(session: Session, group_id: int) -> frozenset[int]:
    """Return the generations of a group that something still names: they must be kept, however old they are."""
    rollouts = (Rollout.group_id == group_id, Rollout.state.in_(("planned", *ACTIVE_STATES)))
    query: CompoundSelect[Any] = union(
        select(GenerationPin.generation).where(GenerationPin.group_id == group_id),
        select(Group.released_generation).where(Group.id == group_id, Group.is_staged),
        select(Rollout.generation).where(*rollouts),
        select(RolloutSatellite.from_generation)
        .join(Rollout, Rollout.id == RolloutSatellite.rollout_id)
        .where(*rollouts),
    )
    return frozenset(generation for generation in session.scalars(query) if generation)


def is_generation_needed(session: Session, group_id: int, generation: int) -> bool:
    """Tell whether a pin, a staged group or a rollout that is not over still names a generation."""
    return generation in needed_generations(session, group_id)


def chunks(ids: Iterable[int]) -> Iterator[Sequence[int]]:
    """Cut ids into parts that fit into a statement, in order."""
    rest = iter(sorted(set(ids)))
    while part := list(itertools.islice(rest, _CHUNK)):
        yield part


def _member(session: Session, satellite: str, group: str) -> tuple[Satellite, Group, Followed]:
    row, found = show_satellite(session, satellite), groups.show_group(session, group)
    # Rollouts take turns with operators by the group's row.
    session.execute(select(Group.id).where(Group.id == found.id).with_for_update())
    before = followed(session, found.id, (row.id,)).get(row.id)
    if before is None:
        raise NotFoundError(f"satellite {satellite} does not follow group {group}")
    return row, found, before


def _tell(session: Session, satellite: Satellite, group: Group, now: datetime) -> None:
    outbox.enqueue_fleet_changed(session, satellite.name, now)
    outbox.enqueue_group_changed(session, group.name, now)


def _upsert(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    dialect = session.get_bind().dialect.name
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(GenerationPin)
    changed = {name: statement.excluded[name] for name in ("generation", "is_rollback", "is_held", "updated_at")}
    keys = [GenerationPin.satellite_id, GenerationPin.group_id]
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), list(rows))


def check_kept(session: Session, group: Group, generations: Collection[int]) -> None:
    """Make sure that all of these generations can be followed.

    Raises:
        ConflictError: one is no longer kept; 0 always can.
    """
    wanted = {generation for generation in generations if generation}
    query = select(GroupState.generation).where(GroupState.group_id == group.id)
    if missing := sorted(wanted - set(session.scalars(query))):
        raise ConflictError(f"generation {missing[0]} of group {group.name} is no longer kept")
