"""Ending satellites: revoked (refused at once, until an operator issues a new token) or deleted for good.

Here both are done in one transaction; what is left at the source and in Prefect is taken away by a flow, whenever
that can be reached. What must not live here: Prefect.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.models import RegistrationToken, RetiredAccount, RetiredSatellite, Satellite
from harbor_satellite.ground_control.satellites import credentials, revisions
from harbor_satellite.ground_control.satellites.accounts import account_name, account_of, is_taken
from harbor_satellite.ground_control.satellites.credentials import REVOKED
from harbor_satellite.ground_control.satellites.satellites import group_names_of, lock_satellite

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.satellites.sources import Source

logger = logging.getLogger(__name__)


def revoke_satellite(session: Session, name: str, now: datetime) -> list[str]:
    """Let a satellite do nothing any more: its credentials and one-time tokens end with this transaction.

    Returns:
        The usernames that were good until now.

    Raises:
        NotFoundError: there is no such satellite.
    """
    satellite = lock_satellite(session, name)
    if satellite.lifecycle != REVOKED:
        satellite.lifecycle = REVOKED
        satellite.lifecycle_since = now
        satellite.updated_at = now
    session.execute(
        update(RegistrationToken)
        .where(RegistrationToken.satellite_id == satellite.id, RegistrationToken.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    ended = credentials.revoke(session, credentials.credentials_of(session, satellite, lock=True), now)
    revisions.note_change(session)
    outbox.enqueue_fleet_changed(session, name, now)
    logger.info("satellite revoked satellite=%s", name)
    return ended


def delete_satellite(session: Session, source: Source, name: str, now: datetime) -> bool:
    """Delete a satellite, and its accounts at the source if that is up; what is left is kept on record for the flow.

    Returns:
        Whether nothing of it is left at the source but its state.

    Raises:
        NotFoundError: there is no such satellite.
    """
    satellite = lock_satellite(session, name)
    members = group_names_of(session, [satellite.id])[satellite.id]
    is_clean = credentials.try_delete(session, source, name, credentials.credentials_of(session, satellite, lock=True))
    session.flush()
    for row in credentials.credentials_of(session, satellite):
        account = account_of(row, name)
        session.merge(RetiredAccount(name=account, satellite=name, source_credential_id=row.source_credential_id))
    if satellite.credential_serial:
        # A renewal that died between the source and the database has left this one behind, and no row.
        left = account_name(name, satellite.credential_serial)
        if not is_taken(session, left):
            session.merge(RetiredAccount(name=left, satellite=name, source_credential_id=None))
    session.merge(RetiredSatellite(name=name, deleted_at=now))
    session.delete(satellite)
    revisions.note_change(session)
    outbox.enqueue_fleet_changed(session, name, now)
    for group in members:
        outbox.enqueue_group_changed(session, group, now)
    logger.info("satellite deleted satellite=%s", name)
    return is_clean


def list_retired(session: Session) -> tuple[str, ...]:
    """Return the deleted satellites of which something may be left, by name."""
    return tuple(session.scalars(select(RetiredSatellite.name).order_by(RetiredSatellite.name)))


def delete_retired_accounts(session: Session, source: Source, name: str) -> None:
    """Delete what is left at the source of a deleted satellite's accounts; the caller commits.

    Raises:
        RemoteError: the source cannot be reached or refuses; call again later.
    """
    # Its successor's claim makes the account before it commits the row: only one of the two at a time.
    session.execute(select(Satellite.id).where(Satellite.name == name).with_for_update())
    for account in session.scalars(select(RetiredAccount).where(RetiredAccount.satellite == name)):
        source.delete(account.name, account.source_credential_id)
        session.delete(account)
    session.flush()
    # A claim that died between the source and the database has left the first account behind, and no row.
    if not is_taken(session, name):
        source.delete(name, None)


def forget_retired(session: Session, name: str, delete_state: Callable[[], object]) -> None:
    """Delete the state of a deleted satellite, and forget the satellite, unless one of its name has a state again.

    Args:
        session: committed by the caller.
        name: of the deleted satellite.
        delete_state: deletes its state at the source.
    """
    again = session.scalar(select(Satellite).where(Satellite.name == name).with_for_update())
    # Its successor must not take the old state for its own; and the old one's end must not take the successor's away.
    if again is None or again.state_digest is None:
        delete_state()
    row = session.get(RetiredSatellite, name)
    if row is not None:
        session.delete(row)
