"""Rollouts as people look at them: shown, listed and counted. Reads only, and never a whole fleet."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.ground_control.models import Group, Rollout, RolloutSatellite, Satellite
from harbor_satellite.ground_control.rollouts.pins import ACTIVE_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

ROLLOUT_STATES: Final = ("planned", "running", "soaking", "paused", "aborted", "completed", "rolled_back")
SATELLITE_STATES: Final = ("waiting", "released", "succeeded", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout, and how far it has come."""

    rollout: Rollout
    group: str
    counts: Mapping[int, Mapping[str, int]]
    """Satellites of each wave by their state."""


def show_rollout(session: Session, rollout_id: int) -> RolloutView:
    """Return a rollout with its counts; raises ``NotFoundError``."""
    query = select(Rollout, Group.name).join(Group, Group.id == Rollout.group_id).where(Rollout.id == rollout_id)
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFoundError(f"no rollout {rollout_id}")
    return RolloutView(found[0], found[1], counts_of(session, [rollout_id])[rollout_id])


def list_rollouts(
    session: Session, *, group: str = "", state: str = "", limit: int = 100, offset: int = 0
) -> tuple[Sequence[RolloutView], int]:
    """Return a page of rollouts, the newest first, and how many match.

    Raises:
        InvalidInputError: there is no such state.
    """
    query = select(Rollout, Group.name).join(Group, Group.id == Rollout.group_id)
    if group:
        query = query.where(Group.name == group)
    if state:
        query = query.where(Rollout.state == _known(state, ROLLOUT_STATES))
    total = session.scalar(select(func.count()).select_from(query.with_only_columns(Rollout.id).subquery())) or 0
    rows = session.execute(query.order_by(Rollout.id.desc()).limit(limit).offset(offset)).all()
    counts = counts_of(session, [rollout.id for rollout, _ in rows])
    return [RolloutView(rollout, name, counts[rollout.id]) for rollout, name in rows], total


def list_satellites(
    session: Session, rollout_id: int, *, state: str = "", wave: int | None = None, limit: int = 100, offset: int = 0
) -> tuple[Sequence[tuple[RolloutSatellite, str]], int]:
    """Return a page of a rollout's satellites by wave and name, and how many match.

    Raises:
        NotFoundError: there is no such rollout.
        InvalidInputError: there is no such state.
    """
    show_rollout(session, rollout_id)
    row = RolloutSatellite
    query = select(row, Satellite.name).join(Satellite, Satellite.id == row.satellite_id)
    query = query.where(row.rollout_id == rollout_id)
    if state:
        query = query.where(row.state == _known(state, SATELLITE_STATES))
    if wave is not None:
        query = query.where(row.wave == wave)
    total = session.scalar(select(func.count()).select_from(query.with_only_columns(row.id).subquery())) or 0
    page = query.order_by(row.wave, Satellite.name).limit(limit).offset(offset)
    return [(found, name) for found, name in session.execute(page)], total


def counts_of(session: Session, rollout_ids: Sequence[int]) -> dict[int, dict[int, dict[str, int]]]:
    """Return how many satellites of each wave are in which state, by the rollout's id."""
    row = RolloutSatellite
    query = (
        select(row.rollout_id, row.wave, row.state, func.count())
        .where(row.rollout_id.in_(rollout_ids))
        .group_by(row.rollout_id, row.wave, row.state)
    )
    found: dict[int, dict[int, dict[str, int]]] = {rollout_id: defaultdict(dict) for rollout_id in rollout_ids}
    for rollout_id, wave, state, count in session.execute(query):
        found[rollout_id][wave][state] = count
    return found


def active_rollouts(session: Session) -> tuple[int, ...]:
    """Return the ids of the rollouts that are going on, paused ones too, the oldest first."""
    query = select(Rollout.id).where(Rollout.state.in_(ACTIVE_STATES)).order_by(Rollout.id)
    return tuple(session.scalars(query))


def _known(state: str, states: tuple[str, ...]) -> str:
    if state not in states:
        raise InvalidInputError(f"no state {state[:32]!r}: say one of {', '.join(states)}")
    return state
