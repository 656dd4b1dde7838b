"""Which generation of a group is followed, as SQL, and which projects a generation names.

One rule for publishing, lists and permissions alike. What must not live here: moving pins (``pins.py``).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from sqlalchemy import case, func, select, tuple_

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.ground_control.models import GenerationPin, Group, GroupState, SatelliteGroup
from harbor_satellite.state.artifact import parse_state_artifact

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Subquery
    from sqlalchemy.orm import Session

_CHUNK: Final = 500  # pairs of ids in one statement


def newest_generations() -> Subquery:
    """Return a subquery of each group's newest generation: ``group_id``, ``generation``."""
    columns = (GroupState.group_id, func.max(GroupState.generation).label("generation"))
    return select(*columns).group_by(GroupState.group_id).subquery("newest")


def followed_generation(newest: Subquery) -> ColumnElement[int]:
    """Return the expression of what is followed, over ``Group``, ``newest`` and outer-joined ``GenerationPin``."""
    return case(
        (GenerationPin.generation.is_not(None), GenerationPin.generation),
        (Group.is_staged, func.coalesce(Group.released_generation, 0)),
        else_=func.coalesce(newest.c.generation, 0),
    )


def followed_projects(session: Session, satellite_id: int | None = None) -> Mapping[int, frozenset[str]]:
    """Return the projects that the followed generations of satellites name, by the satellite's id.

    A site on an older generation pulls what that one names, whatever the group's rows have come to say since.

    Args:
        session: open; only read.
        satellite_id: of one satellite; None: of all.
    """
    newest = newest_generations()
    is_pin = (GenerationPin.group_id == Group.id) & (GenerationPin.satellite_id == SatelliteGroup.satellite_id)
    query = (
        select(SatelliteGroup.satellite_id, Group.id, followed_generation(newest))
        .join(Group, Group.id == SatelliteGroup.group_id)
        .join(newest, newest.c.group_id == Group.id, isouter=True)
        .join(GenerationPin, is_pin, isouter=True)
    )
    if satellite_id is not None:
        query = query.where(SatelliteGroup.satellite_id == satellite_id)
    rows = session.execute(query).all()
    named = _projects_named(session, {(group_id, generation) for _, group_id, generation in rows})
    found: dict[int, frozenset[str]] = defaultdict(frozenset)
    for follower, group_id, generation in rows:
        found[follower] |= named.get((group_id, generation), frozenset())
    return found


def projects_in(content: str) -> list[str] | None:
    """Return the projects that a state names, sorted; None if it cannot be read."""
    try:
        state = parse_state_artifact(content.encode(), None, "a generation in the database")
    except HarborSatelliteError:
        return None
    return sorted({entry.repository.partition("/")[0] for entry in state.artifacts if not entry.deleted})


def _projects_named(session: Session, wanted: Collection[tuple[int, int]]) -> dict[tuple[int, int], frozenset[str]]:
    row, found = GroupState, dict[tuple[int, int], frozenset[str]]()
    pairs = iter(sorted(pair for pair in wanted if pair[1]))
    while part := list(itertools.islice(pairs, _CHUNK)):
        is_wanted = tuple_(row.group_id, row.generation).in_(part)
        known = session.execute(select(row.group_id, row.generation, row.projects).where(is_wanted)).all()
        found |= {(group_id, number): frozenset(names) for group_id, number, names in known if names is not None}
        # Recorded by a release that did not keep them.
        for group_id, number in ((each[0], each[1]) for each in known if each[2] is None):
            content = select(row.content).where(row.group_id == group_id, row.generation == number)
            found[group_id, number] = frozenset(projects_in(session.scalar(content) or "") or ())
    return found
