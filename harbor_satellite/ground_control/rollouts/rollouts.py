"""Rollouts: planned, started, paused, ended and turned round by people. Use cases over a ``Session``.

What must not live here: listing them (``rollout_view.py``), the steps from wave to wave (``rollout_steps.py``), and
what decides those (``rollout_plan.py``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select

from harbor_satellite.errors import ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.fleet.fleet_states import is_in_step, is_silent
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import Group, Rollout, RolloutSatellite, Satellite, SatelliteGroup
from harbor_satellite.ground_control.rollouts import pins
from harbor_satellite.ground_control.rollouts.rollout_plan import Member, Wave, assign, checked_waves
from harbor_satellite.ground_control.satellites import labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

TIMEOUT_LONGEST: Final = 90 * 24 * 3600  # seconds


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What somebody asks for."""

    group: str
    generation: int | None
    """Where to; None: the newest."""
    waves: tuple[Wave, ...]
    max_failures: int = 0
    """Satellites that may fail before the rollout stops itself."""
    max_failure_percent: float | None = None
    """The same as a share of all satellites, in place of the number."""
    receipt_timeout_seconds: int = 3600
    is_rollback: bool = False
    """Whether going back to an older generation is meant."""


def plan_rollout(session: Session, plan: RolloutPlan, created_by: str, now: datetime) -> Rollout:
    """Make a rollout and give every satellite of the group its wave; nothing moves until it is started.

    Raises:
        InvalidInputError: a value breaks its rule, or satellites would go back and that is not said to be meant.
        NotFoundError: there is no such group, or the generation is not kept.
    """
    group = groups.show_group(session, plan.group)
    generation = target_generation(session, group, plan.generation)
    waves = checked_waves(plan.waves)
    if not 0 < plan.receipt_timeout_seconds <= TIMEOUT_LONGEST:
        raise InvalidInputError(f"receipt_timeout_seconds is not between 1 and {TIMEOUT_LONGEST}")
    members = members_of(session, group, now)
    before = pins.followed(session, group.id, [member.id for member in members])
    if (ahead := _ahead(before.values(), generation)) and not plan.is_rollback:
        raise InvalidInputError(
            f"{ahead} satellites are past generation {generation}: say is_rollback to take them back"
        )
    rollout = Rollout(
        group_id=group.id,
        generation=generation,
        is_rollback=plan.is_rollback,
        state="planned",
        reason="",
        waves=[wave.row() for wave in waves],
        max_failures=_max_failures(plan, len(members)),
        receipt_timeout_seconds=plan.receipt_timeout_seconds,
        current_wave=0,
        paused_state="",
        created_by=created_by,
        created_at=now,
        updated_at=now,
    )
    session.add(rollout)
    session.flush()
    rows = [
        {
            "rollout_id": rollout.id,
            "satellite_id": satellite_id,
            "wave": wave,
            "state": "waiting",
            "from_generation": before[satellite_id].generation if satellite_id in before else 0,
            "reason": "",
        }
        for satellite_id, wave in sorted(assign(waves, members, group.name).items())
    ]
    if rows:
        session.execute(insert(RolloutSatellite), rows)
    logger.info("rollout planned rollout=%d group=%s generation=%d", rollout.id, group.name, generation)
    return rollout


def start_rollout(session: Session, rollout_id: int, now: datetime) -> Rollout:
    """Let a planned rollout go, and stage its group if it is not: from now on only rollouts move its satellites.

    Raises:
        NotFoundError: there is no such rollout.
        ConflictError: it is not planned, another one of the group is going on, the generation is gone, or satellites
            have gone past it since it was planned.
    """
    rollout, group = locked_rollout(session, rollout_id)
    _expect(rollout, "planned")
    _only_one(session, rollout, group)
    pins.check_kept(session, group, [rollout.generation])
    if not rollout.is_rollback:
        row = RolloutSatellite
        ids = session.scalars(select(row.satellite_id).where(row.rollout_id == rollout.id)).all()
        if ahead := _ahead(pins.followed(session, group.id, ids).values(), rollout.generation):
            message = f"{ahead} satellites have gone past generation {rollout.generation} since it was planned"
            raise ConflictError(f"rollout {rollout.id}: {message}; plan another one")
    if not group.is_staged:
        group.is_staged = True
        group.released_generation = pins.newest_generation(session, group.id) or None
        group.updated_at = now
    return change_state(session, rollout, "running", "", now)


def pause_rollout(session: Session, rollout_id: int, reason: str, now: datetime) -> Rollout:
    """Let no further wave go; receipts are taken in all the same. Raises as ``start_rollout``."""
    rollout, _ = locked_rollout(session, rollout_id)
    _expect(rollout, "running", "soaking")
    rollout.paused_state = rollout.state
    return change_state(session, rollout, "paused", reason, now)


def resume_rollout(session: Session, rollout_id: int, now: datetime) -> Rollout:
    """Go on where a rollout was paused. Raises as ``start_rollout``."""
    rollout, _ = locked_rollout(session, rollout_id)
    _expect(rollout, "paused")
    state, rollout.paused_state = rollout.paused_state or "running", ""
    return change_state(session, rollout, state, "", now)


def abort_rollout(session: Session, rollout_id: int, reason: str, now: datetime) -> Rollout:
    """End a rollout where it is: who was released stays so, who was not stays where it was.

    Raises:
        NotFoundError: there is no such rollout.
        ConflictError: it is over.
    """
    rollout, _ = locked_rollout(session, rollout_id)
    _expect(rollout, "planned", *pins.ACTIVE_STATES)
    return change_state(session, rollout, "aborted", reason, now)


def roll_back(session: Session, rollout_id: int, reason: str, now: datetime) -> Rollout:
    """Send every satellite that a rollout moved back to what it followed before.

    Held ones stay, and so do those that something else has moved on since.

    Raises:
        NotFoundError: there is no such rollout.
        ConflictError: it has moved nobody, is completed, another one of the group is going on, or what was
            followed before is no longer kept.
    """
    rollout, group = locked_rollout(session, rollout_id)
    _expect(rollout, *pins.ACTIVE_STATES, "aborted")
    _only_one(session, rollout, group)
    row = RolloutSatellite
    moved = session.execute(
        select(row.satellite_id, row.from_generation)
        .join(SatelliteGroup, SatelliteGroup.satellite_id == row.satellite_id)
        .where(row.rollout_id == rollout.id, row.released_at.is_not(None), SatelliteGroup.group_id == group.id)
    ).all()
    before = pins.followed(session, group.id, [satellite_id for satellite_id, _ in moved])
    free = {key for key, item in before.items() if not item.is_held and item.generation == rollout.generation}
    targets = {satellite_id: generation for satellite_id, generation in moved if satellite_id in free}
    pins.check_kept(session, group, set(targets.values()))
    pins.move_pins(session, group.id, targets, now)
    # The flow that moves rollouts may be at work, and looks at those that are over no more.
    outbox.enqueue_group_changed(session, group.name, now)
    return change_state(session, rollout, "rolled_back", reason, now)


def target_generation(session: Session, group: Group, generation: int | None) -> int:
    """Return the generation that is asked for, the newest by default; raises ``NotFoundError``."""
    wanted = pins.newest_generation(session, group.id) if generation is None else generation
    pins.state_digest_of(session, group, wanted)
    return wanted


def members_of(session: Session, group: Group, now: datetime) -> list[Member]:
    """Return the satellites of a group that a rollout can move, with their labels."""
    is_fit = (Satellite.lifecycle == "active") & ~is_silent(now) & is_in_step()
    query = (
        select(Satellite.id, Satellite.name, is_fit)
        .join(SatelliteGroup, SatelliteGroup.satellite_id == Satellite.id)
        .where(SatelliteGroup.group_id == group.id, Satellite.lifecycle != "revoked")
    )
    rows = session.execute(query).all()
    found = {key: item for chunk in pins.chunks(row[0] for row in rows) for key, item in _labels(session, chunk)}
    return [Member(row[0], row[1], found[row[0]], bool(row[2])) for row in rows]


def change_state(session: Session, rollout: Rollout, state: str, reason: str, now: datetime) -> Rollout:
    """Put a rollout into a state, and tell Prefect."""
    logger.info("rollout %s rollout=%d from=%s reason=%s", state, rollout.id, rollout.state, reason)
    rollout.state, rollout.reason, rollout.updated_at = state, reason, now
    outbox.enqueue_rollout_changed(session, rollout.id, now)
    return rollout


def locked_rollout(session: Session, rollout_id: int) -> tuple[Rollout, Group]:
    """Return a rollout and its group, both locked until the transaction ends; raises ``NotFoundError``."""
    rollout = session.get(Rollout, rollout_id)
    if rollout is None:
        raise NotFoundError(f"no rollout {rollout_id}")
    # The group first, then the rollout, everywhere: two rollouts of one group take turns.
    group = session.get(Group, rollout.group_id, with_for_update=True, populate_existing=True)
    rollout = session.get(Rollout, rollout_id, with_for_update=True, populate_existing=True)
    if rollout is None or group is None:
        raise NotFoundError(f"no rollout {rollout_id}")
    return rollout, group


def _ahead(followed: Iterable[pins.Followed], generation: int) -> int:
    """Return how many satellites that a rollout would move are past its generation."""
    return sum(item.generation > generation for item in followed if not item.is_held)


def _expect(rollout: Rollout, *states: str) -> None:
    if rollout.state not in states:
        raise ConflictError(f"rollout {rollout.id} is {rollout.state}, not {' or '.join(states)}")


def _only_one(session: Session, rollout: Rollout, group: Group) -> None:
    query = select(Rollout.id).where(
        Rollout.group_id == group.id, Rollout.id != rollout.id, Rollout.state.in_(pins.ACTIVE_STATES)
    )
    if (other := session.scalar(query.limit(1))) is not None:
        raise ConflictError(f"rollout {other} of group {group.name} is going on")


def _max_failures(plan: RolloutPlan, members: int) -> int:
    if plan.max_failure_percent is None:
        if plan.max_failures < 0:
            raise InvalidInputError("max_failures is negative")
        return plan.max_failures
    if not 0 <= plan.max_failure_percent <= 100:  # noqa: PLR2004 - percent
        raise InvalidInputError("max_failure_percent is not between 0 and 100")
    return int(members * plan.max_failure_percent / 100)


def _labels(session: Session, satellite_ids: Sequence[int]) -> Any:
    return labels.labels_of(session, satellite_ids).items()
