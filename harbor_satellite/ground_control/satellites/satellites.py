"""Satellites: register, list, show, delete, and their one-time tokens. Use cases over a ``Session``."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from harbor_satellite.errors import ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import (
    DEFAULT_SCHEDULE,
    Group,
    RegistrationToken,
    Satellite,
    SatelliteGroup,
)
from harbor_satellite.ground_control.satellites import revisions
from harbor_satellite.ground_control.satellites.credentials import REVOKED
from harbor_satellite.ground_control.tokens import hash_token, mint_token
from harbor_satellite.state.cron import check_schedule
from harbor_satellite.state.names import check_name, group_name, satellite_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.satellites.sources import Source

logger = logging.getLogger(__name__)

STALE_WITHOUT_INTERVAL_SECONDS: Final = 15 * 60
MISSED_REPORTS_UNTIL_STALE: Final = 3
_PART_OF_NAME: Final = re.compile(r"[a-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A one-time token just made; shown this once."""

    token: SecretStr
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SatellitePage:
    """One page of a listing, and how many there are in all."""

    satellites: Sequence[Satellite]
    total: int


def register_satellite(
    session: Session,
    source: Source,
    *,
    name: str,
    group_names: Collection[str],
    config_name: str,
    schedule: str | None,
    token_ttl: timedelta,
    now: datetime,
) -> IssuedToken:
    """Make a satellite and its one-time token, and tell Prefect.

    Raises:
        InvalidInputError: a value breaks its rule, or the source can make no credential of this name.
        NotFoundError: a group does not exist; the message names it.
        ConflictError: the name is taken.
    """
    satellite_name(name)
    source.check_name(name)
    satellite = Satellite(
        name=name,
        schedule=check_schedule(schedule) if schedule else DEFAULT_SCHEDULE,
        config_name=check_name("config", config_name) if config_name else "",
        created_at=now,
        updated_at=now,
    )
    session.add(satellite)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(f"satellite {name!r} already exists") from error
    for group in sorted(set(group_names)):
        groups.add_member(session, satellite, groups.show_group(session, group), now)
    outbox.enqueue_fleet_changed(session, name, now)
    logger.info("satellite registered satellite=%s groups=%s", name, ",".join(sorted(set(group_names))))
    return _issue_token(session, satellite, token_ttl, now)


def reissue_token(session: Session, name: str, token_ttl: timedelta, now: datetime) -> IssuedToken:
    """Make a new one-time token; those before it no longer hold. The satellite's credential does until the claim.

    A satellite that was revoked may come back with it: from now on it counts as registered.

    Raises:
        NotFoundError: there is no such satellite.
    """
    satellite = lock_satellite(session, name)
    revoke_tokens(session, name, now)
    if satellite.lifecycle == REVOKED:
        satellite.lifecycle = "registered"
        satellite.lifecycle_since = now
        revisions.note_change(session)
        outbox.enqueue_fleet_changed(session, name, now)
    return _issue_token(session, satellite, token_ttl, now)


def revoke_tokens(session: Session, name: str, now: datetime) -> None:
    """End every one-time token of a satellite, claimed ones too: a claim cannot be repeated either.

    Raises:
        NotFoundError: there is no such satellite.
    """
    satellite = lock_satellite(session, name)
    session.execute(
        update(RegistrationToken)
        .where(RegistrationToken.satellite_id == satellite.id, RegistrationToken.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    logger.info("tokens revoked satellite=%s", name)


def list_satellites(
    session: Session, *, limit: int | None = None, offset: int = 0, group: str = "", name_contains: str = ""
) -> SatellitePage:
    """Return satellites by name: all of them by default, as the original does.

    Raises:
        InvalidInputError: a negative limit or offset, or what cannot be a part of a name.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise InvalidInputError("limit and offset are not negative")
    if name_contains and _PART_OF_NAME.fullmatch(name_contains) is None:
        raise InvalidInputError(f"not a part of a satellite name: {name_contains[:128]!r}")
    query = select(Satellite)
    if group:
        query = query.join(SatelliteGroup).join(Group).where(Group.name == group_name(group))
    if name_contains:
        query = query.where(Satellite.name.contains(name_contains, autoescape=True))
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    query = query.order_by(Satellite.name).offset(offset)
    return SatellitePage(session.scalars(query if limit is None else query.limit(limit)).all(), total)


def show_satellite(session: Session, name: str) -> Satellite:
    """Return a satellite; raises ``NotFoundError``, or ``InvalidInputError`` for what cannot be a name."""
    satellite = session.scalar(select(Satellite).where(Satellite.name == satellite_name(name)))
    if satellite is None:
        raise NotFoundError(f"no satellite {name!r}")
    return satellite


def lock_satellite(session: Session, name: str) -> Satellite:
    """Return a satellite, its row locked; it comes before tokens and credentials, or two wait for each other.

    Raises:
        NotFoundError: there is no such satellite.
    """
    query = select(Satellite).where(Satellite.name == satellite_name(name)).with_for_update()
    satellite = session.scalar(query.execution_options(populate_existing=True))
    if satellite is None:
        raise NotFoundError(f"no satellite {name!r}")
    return satellite


def group_names_of(session: Session, satellite_ids: Collection[int]) -> dict[int, list[str]]:
    """Return the names of the groups that satellites follow, sorted, by the satellite's id."""
    found: dict[int, list[str]] = {satellite_id: [] for satellite_id in satellite_ids}
    query = (
        select(SatelliteGroup.satellite_id, Group.name)
        .join(Group, Group.id == SatelliteGroup.group_id)
        .where(SatelliteGroup.satellite_id.in_(satellite_ids))
        .order_by(Group.name)
    )
    for satellite_id, group in session.execute(query):
        found[satellite_id].append(group)
    return found


def set_schedule(session: Session, name: str, schedule: str, now: datetime) -> Satellite:
    """Set when a satellite replicates, and tell Prefect.

    Raises:
        InvalidInputError: not a 5-field cron expression.
        NotFoundError: there is no such satellite.
    """
    satellite = show_satellite(session, name)
    satellite.schedule = check_schedule(schedule)
    satellite.updated_at = now
    outbox.enqueue_fleet_changed(session, name, now)
    return satellite


def list_active(session: Session, now: datetime) -> Sequence[Satellite]:
    """Return the satellites whose last report is not overdue, by name."""
    return [satellite for satellite in _seen(session) if not is_stale(satellite, now)]


def list_stale(session: Session, now: datetime) -> Sequence[Satellite]:
    """Return the satellites that reported once and have been silent for too long, by name."""
    return [satellite for satellite in _seen(session) if is_stale(satellite, now)]


def is_stale(satellite: Satellite, now: datetime) -> bool:
    """Tell whether a satellite has missed three reports (15 minutes if it never said how often it reports)."""
    if satellite.last_seen is None:
        return True
    interval = satellite.report_interval_seconds
    allowed = interval * MISSED_REPORTS_UNTIL_STALE if interval else STALE_WITHOUT_INTERVAL_SECONDS
    return now - satellite.last_seen > timedelta(seconds=allowed)


def _seen(session: Session) -> Sequence[Satellite]:
    return session.scalars(select(Satellite).where(Satellite.last_seen.is_not(None)).order_by(Satellite.name)).all()


def _issue_token(session: Session, satellite: Satellite, ttl: timedelta, now: datetime) -> IssuedToken:
    token = mint_token()
    session.add(
        RegistrationToken(satellite_id=satellite.id, token_hash=hash_token(token), created_at=now, expires_at=now + ttl)
    )
    return IssuedToken(token, now + ttl)
