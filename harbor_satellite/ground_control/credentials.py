"""A satellite's one credential: issued by a claim, checked at every report, granted what its groups need."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from harbor_satellite.errors import AuthenticationError, NotFoundError
from harbor_satellite.ground_control.models import Credential, GroupArtifact, Satellite, SatelliteGroup
from harbor_satellite.ground_control.tokens import hash_token, verify_token
from harbor_satellite.state.names import STATE_PROJECT, satellite_name

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.sources import Source, SourceCredential

logger = logging.getLogger(__name__)

_USERNAME_LONGEST: Final = 255  # characters


@dataclass(frozen=True, slots=True)
class SatelliteIdentity:
    """Which satellite is calling, and with which credential."""

    satellite_id: int
    name: str
    credential_id: int


def authenticate_satellite(session: Session, username: str, secret: SecretStr) -> SatelliteIdentity:
    """Tell which satellite a username and secret belong to.

    Raises:
        AuthenticationError: no satellite's; the same message whatever is wrong.
    """
    row = None
    if len(username) <= _USERNAME_LONGEST and username.isprintable():
        query = select(Credential, Satellite.name).join(Satellite).where(Credential.username == username)
        row = session.execute(query).one_or_none()
    if row is None or not verify_token(secret, row[0].secret_hash):
        raise AuthenticationError("invalid satellite credentials")
    return SatelliteIdentity(row[0].satellite_id, row[1], row[0].id)


def current_credential(session: Session, satellite: Satellite, *, lock: bool = False) -> Credential | None:
    """Return the satellite's credential, if it has one yet."""
    query = select(Credential).where(Credential.satellite_id == satellite.id).order_by(Credential.id.desc()).limit(1)
    return session.scalar(query.with_for_update() if lock else query)


def issue(session: Session, source: Source, satellite: Satellite, now: datetime) -> SourceCredential:
    """Make the satellite's credential at the source, or renew it, and keep its hash.

    Raises:
        RemoteError: the source cannot be reached or refuses; nothing has changed here then.
    """
    wanted = wanted_projects(session, satellite)
    row = current_credential(session, satellite, lock=True)
    if row is None:
        issued = source.create(satellite.name, wanted)
        row = Credential(satellite_id=satellite.id, created_at=now)
        session.add(row)
    else:
        issued = source.rotate(satellite.name, row.source_credential_id, wanted)
    row.username = issued.username
    row.secret_hash = hash_token(issued.secret)
    row.source_credential_id = issued.id
    row.expires_at = issued.expires_at
    row.granted_projects = list(issued.projects)
    row.first_used_at = None
    logger.info("credential issued satellite=%s username=%s", satellite.name, issued.username)
    return issued


def note_first_use(session: Session, identity: SatelliteIdentity, now: datetime) -> None:
    """Note that the credential arrived at the site: from now on its claim cannot be repeated."""
    row = session.get(Credential, identity.credential_id)
    if row is not None and row.first_used_at is None:
        row.first_used_at = now


def withdraw(session: Session, source: Source, satellite: Satellite) -> None:
    """Take the satellite's credential away, at the source first.

    Raises:
        RemoteError: the source cannot be reached or refuses; the row stays, so that it can be tried again.
    """
    for row in session.scalars(select(Credential).where(Credential.satellite_id == satellite.id)):
        source.delete(satellite.name, row.source_credential_id)
        session.delete(row)


def wanted_projects(session: Session, satellite: Satellite) -> tuple[str, ...]:
    """Return what the satellite must be able to pull from: its state, and all of its groups' projects, sorted."""
    query = (
        select(GroupArtifact.repository)
        .join(SatelliteGroup, SatelliteGroup.group_id == GroupArtifact.group_id)
        .where(SatelliteGroup.satellite_id == satellite.id, GroupArtifact.deleted.is_(False))
        .distinct()
    )
    projects = {repository.partition("/")[0] for repository in session.scalars(query)}
    return tuple(sorted({STATE_PROJECT, *projects}))


def grant_projects(session: Session, source: Source, satellite: str) -> bool:
    """Make the credential's permissions what its groups need now; the source is asked only if they changed.

    Returns:
        Whether the source was told.

    Raises:
        NotFoundError: there is no such satellite.
        RemoteError: the source cannot be reached or refuses; call again later.
    """
    row = session.scalar(select(Satellite).where(Satellite.name == satellite_name(satellite)))
    if row is None:
        raise NotFoundError(f"no satellite {satellite!r}")
    credential = current_credential(session, row, lock=True)
    if credential is None:
        return False  # it gets them with its claim
    wanted = wanted_projects(session, row)
    if list(wanted) == credential.granted_projects:
        return False
    granted = source.set_projects(satellite, credential.source_credential_id, wanted)
    credential.granted_projects = list(granted)
    logger.info("projects granted satellite=%s projects=%s", satellite, ",".join(granted))
    return True
