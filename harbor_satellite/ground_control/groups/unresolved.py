"""What the source did not have when a group was last to be published: kept, so that the centre can say why.

Level-triggered: every attempt to publish replaces what the one before it left. What must not live here: resolving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, insert, select

from harbor_satellite.ground_control.groups import group_states
from harbor_satellite.ground_control.groups.groups import show_group
from harbor_satellite.ground_control.models import Group, SatelliteGroup, UnresolvedArtifact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.groups.group_states import GroupSpec
    from harbor_satellite.ground_control.models import Satellite

KEPT_UNRESOLVED: Final = 10_000
"""Of each group, and in each answer; of more, the first by name: then the source itself is what to look at."""
_REFERENCE_LONGEST: Final = 512  # characters; of the column
_REASON_LONGEST: Final = 2048  # characters; the source has its say in them


@dataclass(frozen=True, slots=True)
class Unresolved:
    """One entry that the source does not have as the group names it."""

    reference: str
    """``repository:tag``, or ``repository@digest`` for an entry without a tag; with patterns, a selector."""
    reason: str


@dataclass(frozen=True, slots=True)
class KnownUnresolved:
    """One entry that the source did not have at the last attempt to publish its group."""

    group: str
    reference: str
    reason: str
    """As of the last attempt."""
    since: datetime
    """The first of the attempts in a row that did not find it."""


def record_unresolved(session: Session, spec: GroupSpec, problems: Iterable[Unresolved], now: datetime) -> None:
    """Replace what is known to be unresolved of a group; nothing is written if it is what was known.

    Args:
        session: open; committed by the caller.
        spec: the group as it was read before resolving.
        problems: all that was not resolved; none clears what was known.
        now: this moment.

    Raises:
        NotFoundError: the group was deleted meanwhile.
        ConflictError: the group was changed or published meanwhile; read it and resolve it again.
    """
    group_states.lock_unchanged(session, spec)
    group = show_group(session, spec.name)
    mine = UnresolvedArtifact.group_id == group.id
    known = {row.reference: row for row in session.scalars(select(UnresolvedArtifact).where(mine))}
    found = {problem.reference[:_REFERENCE_LONGEST]: _storable(problem.reason) for problem in problems}
    kept = {reference: found[reference] for reference in sorted(found)[:KEPT_UNRESOLVED]}
    if kept == {reference: row.reason for reference, row in known.items()}:
        return
    rows = [
        {
            "group_id": group.id,
            "reference": reference,
            "reason": reason,
            "since": known[reference].since if reference in known else now,
        }
        for reference, reason in kept.items()
    ]
    session.execute(delete(UnresolvedArtifact).where(mine))
    if rows:
        session.execute(insert(UnresolvedArtifact), rows)


def unresolved_of_group(session: Session, group: Group) -> tuple[KnownUnresolved, ...]:
    """Return what is known to be unresolved of a group, by reference."""
    return _known(session, UnresolvedArtifact.group_id == group.id)


def unresolved_of_satellite(session: Session, satellite: Satellite) -> tuple[KnownUnresolved, ...]:
    """Return what is known to be unresolved of all groups that a satellite follows, by group and reference."""
    followed = select(SatelliteGroup.group_id).where(SatelliteGroup.satellite_id == satellite.id)
    return _known(session, UnresolvedArtifact.group_id.in_(followed))


def count_unresolved(session: Session, group_ids: Collection[int]) -> dict[int, int]:
    """Return how much is known to be unresolved of each of these groups, by the group's id."""
    counts = dict.fromkeys(group_ids, 0)
    of_group = UnresolvedArtifact.group_id
    query = select(of_group, func.count()).where(of_group.in_(group_ids)).group_by(of_group)
    counts.update((group_id, count) for group_id, count in session.execute(query))
    return counts


def _known(session: Session, condition: ColumnElement[bool]) -> tuple[KnownUnresolved, ...]:
    row = UnresolvedArtifact
    query = (
        select(Group.name, row.reference, row.reason, row.since)
        .join(Group, Group.id == row.group_id)
        .where(condition)
        .order_by(Group.name, row.reference)
        .limit(KEPT_UNRESOLVED)
    )
    return tuple(KnownUnresolved(*found) for found in session.execute(query))


def _storable(reason: str) -> str:
    """Return a reason that every database takes: PostgreSQL's text has no NUL, and UTF-8 no half characters."""
    return reason[:_REASON_LONGEST].encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
