"""Changing what a group is, beside what it names: made empty, staged or not, its config, its expiry."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from harbor_satellite.errors import ConflictError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups.groups import check_expiry, check_registry, ensure_group
from harbor_satellite.ground_control.models import GenerationPin, Group, GroupState, Rollout, SatelliteConfig
from harbor_satellite.ground_control.rollouts import pins
from harbor_satellite.state.names import check_name, group_name

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What shall become of a group; None leaves a part as it is."""

    is_staged: bool | None = None
    config_name: str | None = None
    """Empty: no config."""
    has_expiry: bool = False
    """Whether ``expires_after_seconds`` is to be taken: there, None means for ever."""
    expires_after_seconds: int | None = None


def create_group(session: Session, name: str, registry: str, now: datetime) -> Group:
    """Make a group that names nothing yet.

    Raises:
        InvalidInputError: name or registry breaks its rule.
        ConflictError: the name is taken.
    """
    check_registry(registry)
    if session.scalar(select(Group.id).where(Group.name == group_name(name))) is not None:
        raise ConflictError(f"group {name!r} is there already")
    group = ensure_group(session, name, registry, now)
    outbox.enqueue_group_changed(session, name, now)
    logger.info("group created group=%s", name)
    return group


def change_group(session: Session, name: str, change: GroupChange, now: datetime) -> Group:
    """Change a group, and tell Prefect.

    A group that becomes staged stays where it is: what was published last is what its satellites follow, until
    a rollout moves them. One that is staged no more moves all of them to its newest generation, but for those
    that an operator holds.

    Raises:
        InvalidInputError: a value breaks its rule.
        NotFoundError: there is no such group, or no such config.
        ConflictError: staging is to end while a rollout of the group is going on.
    """
    group = session.scalar(select(Group).where(Group.name == group_name(name)).with_for_update())
    if group is None:
        raise NotFoundError(f"no group {name!r}")
    if change.config_name is not None:
        _check_config(session, change.config_name)
        group.config_name = change.config_name
    if change.has_expiry:
        check_expiry(change.expires_after_seconds)
        group.expires_after_seconds = change.expires_after_seconds
    if change.is_staged is not None:
        _stage(session, group, is_staged=change.is_staged)
    group.updated_at = now
    outbox.enqueue_group_changed(session, name, now)
    logger.info("group changed group=%s is_staged=%s config=%s", name, group.is_staged, group.config_name)
    return group


def group_values(group: Group) -> dict[str, object]:
    """Return what ``change_group`` may change, for the audit log."""
    return {
        "is_staged": group.is_staged,
        "config_name": group.config_name,
        "expires_after_seconds": group.expires_after_seconds,
        "released_generation": group.released_generation,
    }


def _check_config(session: Session, name: str) -> None:
    if not name:
        return
    if session.scalar(select(SatelliteConfig.id).where(SatelliteConfig.name == check_name("config", name))) is None:
        raise NotFoundError(f"no config {name!r}")


def _stage(session: Session, group: Group, *, is_staged: bool) -> None:
    if not is_staged:
        _check_no_rollout(session, group)
    group.is_staged = is_staged
    if is_staged:
        if group.released_generation is None:
            newest = select(func.max(GroupState.generation)).where(GroupState.group_id == group.id)
            group.released_generation = session.scalar(newest)
        return
    group.released_generation = None
    mine = GenerationPin.group_id == group.id
    session.execute(delete(GenerationPin).where(mine, GenerationPin.is_held.is_(False)))


def _check_no_rollout(session: Session, group: Group) -> None:
    # Its later waves would take satellites back from the newest generation to the rollout's.
    going_on = select(Rollout.id).where(Rollout.group_id == group.id, Rollout.state.in_(pins.ACTIVE_STATES)).limit(1)
    if (rollout := session.scalar(going_on)) is not None:
        raise ConflictError(f"rollout {rollout} of group {group.name} is going on: abort it or let it complete first")
