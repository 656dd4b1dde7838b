"""Which sites are not on the state that they should be on, and why: pages, and counts of all.

A page costs the same few queries whatever its size. What must not live here: HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, case, func, select

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.fleet.fleet_reasons import FollowedGroup, reason_of
from harbor_satellite.ground_control.fleet.fleet_states import FLEET_STATES, is_pin_of_member, lagging_since, state_of
from harbor_satellite.ground_control.groups.generations import followed_generation, newest_generations
from harbor_satellite.ground_control.models import (
    AppliedGroupRow,
    GenerationPin,
    Group,
    Satellite,
    SatelliteGroup,
    SatelliteLabel,
    UnresolvedArtifact,
)
from harbor_satellite.ground_control.satellites.labels import labels_of, parse_label
from harbor_satellite.state.names import group_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.fleet.fleet_states import FleetState

DEFAULT_LIMIT: Final = 50
LIMIT_MAX: Final = 500
_LABELS_MAX: Final = 10
SORTS: Final = ("name", "lag", "last_seen", "failures", "bytes")
"""A ``-`` in front turns the order round."""
_PART_OF_NAME: Final = re.compile(r"[a-z0-9._-]{1,128}")
_FAR: Final = datetime(9999, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FleetQuery:
    """Which satellites to show, in which order."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    group: str = ""
    labels: tuple[str, ...] = ()
    """``key=value``; a satellite must have all of them."""
    state: str = ""
    """One of ``FLEET_STATES``; empty: all."""
    name_contains: str = ""
    sort: str = "name"


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One satellite, and why it is where it is."""

    satellite: Satellite
    state: FleetState
    reason: str
    """One line; empty: in step, and nothing to say."""
    lag_seconds: float | None
    """0 in step, None if nothing was published for it."""
    labels: Mapping[str, str]
    groups: tuple[FollowedGroup, ...]


@dataclass(frozen=True, slots=True)
class FleetPage:
    """One page, and how many match in all."""

    rows: Sequence[FleetRow]
    total: int


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """How many of a group's satellites are on the generation that they should be on."""

    group: str
    generation: int
    """The highest that any of them should be on; 0: none."""
    satellite_count: int
    in_step_count: int


@dataclass(frozen=True, slots=True)
class StateCounts:
    """How many satellites are in which state."""

    states: Mapping[FleetState, int]
    """Every state, those without satellites too."""
    lifecycles: Mapping[str, int]
    oldest_lag_seconds: float
    """Of satellites that are neither revoked nor were never seen; 0: all are in step."""


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """The whole fleet in a few numbers."""

    counts: StateCounts
    groups: tuple[GroupProgress, ...]


def list_fleet(session: Session, query: FleetQuery, now: datetime) -> FleetPage:
    """Return a page of the fleet.

    Raises:
        InvalidInputError: a limit, filter or order that cannot be; the message names it.
    """
    if not 0 <= query.limit <= LIMIT_MAX or query.offset < 0:
        raise InvalidInputError(f"limit is at most {LIMIT_MAX}, and neither it nor offset is negative")
    state = state_of(now)
    matching = _matching(query, state)
    total = session.scalar(select(func.count()).select_from(Satellite).where(*matching)) or 0
    page: Select[Any] = select(Satellite, state, lagging_since()).where(*matching).order_by(*_order(query.sort))
    found = session.execute(page.limit(query.limit).offset(query.offset)).all()
    ids = [row[0].id for row in found]
    labels, groups = labels_of(session, ids), _groups_of(session, ids)
    rows = [
        FleetRow(
            satellite,
            named,
            reason_of(satellite, named, _utc(since), groups[satellite.id]),
            _lag(named, _utc(since), now),
            labels[satellite.id],
            tuple(groups[satellite.id]),
        )
        for satellite, named, since in found
    ]
    return FleetPage(rows, total)


def summarise_fleet(session: Session, now: datetime) -> FleetSummary:
    """Return the counts of the whole fleet, and how far each group is."""
    return FleetSummary(count_states(session, now), _progress(session))


def count_states(session: Session, now: datetime) -> StateCounts:
    """Return how many satellites are in which state."""
    state = state_of(now).label("state")
    per_state = select(state, Satellite.lifecycle, func.count(), func.min(lagging_since())).group_by(
        state, Satellite.lifecycle
    )
    states: dict[FleetState, int] = dict.fromkeys(FLEET_STATES, 0)
    lifecycles: dict[str, int] = dict.fromkeys(("registered", "active", "stale", "revoked"), 0)
    oldest: list[datetime] = []
    for named, lifecycle, count, since in session.execute(per_state):
        states[named] += count
        lifecycles[lifecycle] += count
        if since is not None and named not in {"revoked", "never_seen"}:
            oldest.append(_utc(since) or now)
    lag = max(0.0, (now - min(oldest)).total_seconds()) if oldest else 0.0
    return StateCounts(states, lifecycles, lag)


def _matching(query: FleetQuery, state: ColumnElement[str]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.state:
        if query.state not in FLEET_STATES:
            raise InvalidInputError(f"not a state: {query.state[:40]!r} ({', '.join(FLEET_STATES)})")
        found.append(state == query.state)
    if query.group:
        members = select(SatelliteGroup.satellite_id).join(Group).where(Group.name == group_name(query.group))
        found.append(Satellite.id.in_(members))
    if len(query.labels) > _LABELS_MAX:
        raise InvalidInputError(f"at most {_LABELS_MAX} labels at once")
    for key, value in map(parse_label, query.labels):
        label = SatelliteLabel
        found.append(Satellite.id.in_(select(label.satellite_id).where(label.key == key, label.value == value)))
    if query.name_contains:
        if _PART_OF_NAME.fullmatch(query.name_contains) is None:
            raise InvalidInputError(f"not a part of a satellite name: {query.name_contains[:128]!r}")
        found.append(Satellite.name.contains(query.name_contains, autoescape=True))
    return found


def _order(sort: str) -> list[ColumnElement[Any]]:
    name = sort.removeprefix("-")
    if name not in SORTS:
        raise InvalidInputError(f"not an order: {sort[:40]!r} ({', '.join(SORTS)}; - in front turns it round)")
    is_descending = sort.startswith("-")
    key: Any
    match name:
        case "name":
            return [Satellite.name.desc() if is_descending else Satellite.name.asc()]
        case "lag":  # the longest lag is the earliest moment
            key, is_descending = func.coalesce(lagging_since(), _FAR), not is_descending
        case "last_seen":  # both databases shall take never for the earliest
            key = func.coalesce(Satellite.last_seen, _NEVER)
        case "failures":
            key = Satellite.failure_count
        case _:
            key = Satellite.bytes_today
    return [key.desc() if is_descending else key.asc(), Satellite.name.asc()]


def _groups_of(session: Session, satellite_ids: Collection[int]) -> dict[int, list[FollowedGroup]]:
    unresolved = select(func.count()).where(UnresolvedArtifact.group_id == Group.id).correlate(Group).scalar_subquery()
    newest = newest_generations()
    query = (
        select(
            SatelliteGroup.satellite_id,
            Group.name,
            followed_generation(newest),
            func.coalesce(AppliedGroupRow.generation, 0),
            func.coalesce(GenerationPin.is_held, False),
            unresolved,
        )
        .join(Group, Group.id == SatelliteGroup.group_id)
        .outerjoin(newest, newest.c.group_id == Group.id)
        .outerjoin(GenerationPin, is_pin_of_member())
        .outerjoin(AppliedGroupRow, _is_applied_by_member())
        .where(SatelliteGroup.satellite_id.in_(satellite_ids))
        .order_by(Group.name)
    )
    found: dict[int, list[FollowedGroup]] = {satellite_id: [] for satellite_id in satellite_ids}
    for satellite_id, name, wanted, applied, is_held, unresolved_count in session.execute(query):
        found[satellite_id].append(FollowedGroup(name, wanted, applied, bool(is_held), unresolved_count))
    return found


def _progress(session: Session) -> tuple[GroupProgress, ...]:
    newest = newest_generations()
    members = (
        select(
            Group.name.label("name"),
            followed_generation(newest).label("wanted"),
            func.coalesce(AppliedGroupRow.generation, 0).label("applied"),
        )
        .select_from(SatelliteGroup)
        .join(Group, Group.id == SatelliteGroup.group_id)
        .outerjoin(newest, newest.c.group_id == Group.id)
        .outerjoin(GenerationPin, is_pin_of_member())
        .outerjoin(AppliedGroupRow, _is_applied_by_member())
        .subquery()
    )
    is_there = and_(members.c.wanted > 0, members.c.applied == members.c.wanted)
    query = (
        select(members.c.name, func.max(members.c.wanted), func.count(), func.sum(case((is_there, 1), else_=0)))
        .group_by(members.c.name)
        .order_by(members.c.name)
    )
    return tuple(GroupProgress(*map(_plain, row)) for row in session.execute(query))


def _is_applied_by_member() -> ColumnElement[bool]:
    return and_(AppliedGroupRow.satellite_id == SatelliteGroup.satellite_id, AppliedGroupRow.group_name == Group.name)


def _plain(value: Any) -> Any:
    return int(value) if not isinstance(value, str) else value


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _lag(state: str, since: datetime | None, now: datetime) -> float | None:
    if since is None:
        return 0.0 if state == "in_step" else None
    return max(0.0, (now - since).total_seconds())
