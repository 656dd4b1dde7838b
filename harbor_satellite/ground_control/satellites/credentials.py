"""A satellite's credentials: issued by a claim or a renewal, checked at every call, granted what its groups need.

A satellite has one that it uses. A renewal puts the next one beside it; the first use of that one supersedes the
older ones, which ``rotation.py`` deletes at the source after a while.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from harbor_satellite.errors import AuthenticationError, HarborSatelliteError, NotFoundError, RemoteError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups import generations, groups
from harbor_satellite.ground_control.models import Credential, Satellite, SatelliteGroup
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.people.audit_log import Actor
from harbor_satellite.ground_control.satellites import revisions
from harbor_satellite.ground_control.satellites.accounts import account_of, take_account_name
from harbor_satellite.ground_control.tokens import hash_token, verify_token
from harbor_satellite.state.names import STATE_PROJECT, satellite_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.satellites.sources import Source, SourceCredential

logger = logging.getLogger(__name__)

REVOKED: Final = "revoked"
"""The lifecycle of a satellite that nobody listens to until an operator issues it a new one-time token."""
_USERNAME_LONGEST: Final = 255  # characters
_CANNOT_CHANGE: Final = frozenset({403, 404})  # not with our rights; not there any more


@dataclass(frozen=True, slots=True)
class SatelliteIdentity:
    """Which satellite is calling, and with which credential."""

    satellite_id: int
    name: str
    credential_id: int
    is_confirmed: bool = False
    """Whether the credential was used before."""
    is_renewal_due: bool = False
    """Whether the site shall ask for another one."""
    expires_at: datetime | None = None
    """When the credential ends; None: never."""


def authenticate_satellite(
    session: Session,
    username: str,
    secret: SecretStr,
    now: datetime | None = None,
    *,
    expired_grace: timedelta = timedelta(0),
) -> SatelliteIdentity:
    """Tell which satellite a username and secret belong to.

    Args:
        session: reads only.
        username: as the source calls the account.
        secret: its secret.
        now: this moment; None: by this machine's clock.
        expired_grace: how long after its end a credential is still taken; only for asking for another one.

    Raises:
        AuthenticationError: no satellite's; more is said only to whoever has the right secret.
    """
    row = None
    if len(username) <= _USERNAME_LONGEST and username.isprintable():
        query = select(Credential, Satellite).join(Satellite).where(Credential.username == username)
        row = session.execute(query).one_or_none()
    if row is None or not verify_token(secret, row[0].secret_hash):
        raise AuthenticationError("invalid satellite credentials")
    credential, satellite = row
    check_usable(credential, satellite, now or datetime.now(UTC), expired_grace)
    return SatelliteIdentity(
        satellite.id,
        satellite.name,
        credential.id,
        is_confirmed=credential.first_used_at is not None,
        is_renewal_due=credential.is_renewal_due,
        expires_at=credential.expires_at,
    )


def check_usable(credential: Credential, satellite: Satellite, now: datetime, expired_grace: timedelta) -> None:
    """Raise ``AuthenticationError`` if a credential is revoked, or expired for longer than the grace."""
    if credential.revoked_at is not None or satellite.lifecycle == REVOKED:
        raise AuthenticationError("this credential was revoked")
    if credential.expires_at is None or now < credential.expires_at + expired_grace:
        return
    if expired_grace:
        raise AuthenticationError("this credential expired too long ago: an operator must issue a one-time token")
    raise AuthenticationError("this credential has expired: ask for another one")


def issue(
    session: Session, source: Source, satellite: Satellite, now: datetime, *, renewal_key: SecretStr | None = None
) -> SourceCredential:
    """Make another credential of a satellite at the source, and keep its hash; the satellite's row is locked.

    Raises:
        RemoteError: the source cannot be reached or refuses; nothing has changed here then.
    """
    wanted = wanted_projects(session, satellite)
    account = take_account_name(session, satellite)
    issued = source.create(account, wanted)
    session.add(
        Credential(
            satellite_id=satellite.id,
            username=issued.username,
            secret_hash=hash_token(issued.secret),
            source_credential_id=issued.id,
            expires_at=issued.expires_at,
            granted_projects=list(issued.projects),
            account_name=account,
            renewal_key_hash=hash_token(renewal_key) if renewal_key else None,
            is_renewal_due=False,
            created_at=now,
        )
    )
    session.flush()
    logger.info("credential issued satellite=%s username=%s", satellite.name, issued.username)
    return issued


def note_first_use(session: Session, identity: SatelliteIdentity, now: datetime) -> None:
    """Note that a credential arrived at its site: it supersedes the older ones, and its claim cannot be repeated."""
    if identity.is_confirmed:
        return
    row = session.get(Credential, identity.credential_id)
    if row is None or row.first_used_at is not None:
        return
    row.first_used_at = now
    older = (
        update(Credential)
        .where(
            Credential.satellite_id == row.satellite_id,
            Credential.id < row.id,
            Credential.superseded_at.is_(None),
            Credential.revoked_at.is_(None),
        )
        .values(superseded_at=now, is_renewal_due=False)
        .returning(Credential.username)
        .execution_options(synchronize_session=False)
    )
    superseded = sorted(session.scalars(older))
    revisions.note_change(session)
    if superseded:
        actor = Actor(f"satellite:{identity.name}")
        changes = {"username": [", ".join(superseded), row.username]}
        audit_log.record(session, actor, "credential.supersede", f"satellite:{identity.name}", changes=changes, now=now)


def credentials_of(session: Session, satellite: Satellite, *, lock: bool = False) -> Sequence[Credential]:
    """Return all credentials of a satellite, the newest first."""
    query = select(Credential).where(Credential.satellite_id == satellite.id).order_by(Credential.id.desc())
    return session.scalars(query.with_for_update() if lock else query).all()


def expiries_of(session: Session, satellite_ids: Collection[int]) -> dict[int, datetime]:
    """Return when the newest used credential of each satellite expires, by its id; none for those that never do."""
    query = (
        select(Credential.satellite_id, Credential.expires_at)
        .where(
            Credential.satellite_id.in_(satellite_ids),
            Credential.revoked_at.is_(None),
            Credential.superseded_at.is_(None),
            Credential.expires_at.is_not(None),
        )
        # The last one of a satellite counts: of those in use, the newest; else the one that is to be used.
        .order_by(Credential.first_used_at.is_not(None), Credential.id)
    )
    return {satellite_id: moment for satellite_id, moment in session.execute(query) if moment is not None}


def is_live(credential: Credential) -> bool:
    """Tell whether a credential is in use, or about to be."""
    return credential.revoked_at is None and credential.superseded_at is None


def revoke(session: Session, rows: Iterable[Credential], now: datetime) -> list[str]:
    """Let nobody in with these credentials any more; what they are at the source is still to be deleted.

    Returns:
        The usernames that were good until now.
    """
    ended = [row for row in rows if row.revoked_at is None]
    for row in ended:
        row.revoked_at = now
        row.is_renewal_due = False
    if ended:
        revisions.note_change(session)
    return [row.username for row in ended]


def try_delete(session: Session, source: Source, satellite: str, rows: Iterable[Credential]) -> bool:
    """Delete credentials at the source and here, as far as the source is up; the rest is left for later.

    Returns:
        Whether all of them are gone.
    """
    for row in rows:
        try:
            source.delete(account_of(row, satellite), row.source_credential_id)
        except HarborSatelliteError as error:
            logger.warning("account not deleted satellite=%s username=%s reason=%s", satellite, row.username, error)
            return False
        session.delete(row)
        revisions.note_change(session)
    return True


def wanted_projects(session: Session, satellite: Satellite) -> tuple[str, ...]:
    """Return what the satellite must be able to pull from, sorted: its state, and all of its groups' projects.

    Those of the groups as they are asked for now, and those of the generations that it follows.
    """
    followed = select(SatelliteGroup.group_id).where(SatelliteGroup.satellite_id == satellite.id)
    named = generations.followed_projects(session, satellite.id)
    projects = {*groups.projects_of_groups(session, followed), *named.get(satellite.id, ())}
    return tuple(sorted({STATE_PROJECT, *projects}))


def grant_projects(session: Session, source: Source, satellite: str, now: datetime | None = None) -> bool:
    """Make the credentials' permissions what the groups need now; the source is asked only if they changed.

    What the source does not let us change is due for renewal: the next credential has the right permissions.

    Args:
        session: the caller commits.
        source: where the credentials are.
        satellite: its name.
        now: this moment; None: by this machine's clock.

    Returns:
        Whether the source was told.

    Raises:
        NotFoundError: there is no such satellite.
        RemoteError: the source cannot be reached or refuses; call again later.
    """
    row = session.scalar(select(Satellite).where(Satellite.name == satellite_name(satellite)))
    if row is None:
        raise NotFoundError(f"no satellite {satellite!r}")
    wanted = wanted_projects(session, row)
    live = [each for each in credentials_of(session, row, lock=True) if is_live(each)]  # none: they come with the claim
    moment, differing = now or datetime.now(UTC), [each for each in live if each.granted_projects != list(wanted)]
    told = [_grant(session, source, row, each, wanted=wanted, now=moment) for each in differing]
    return any(told)


def _grant(
    session: Session,
    source: Source,
    satellite: Satellite,
    credential: Credential,
    *,
    wanted: tuple[str, ...],
    now: datetime,
) -> bool:
    account = account_of(credential, satellite.name)
    try:
        granted = source.set_projects(account, credential.source_credential_id, wanted)
    except RemoteError as error:
        if error.status not in _CANNOT_CHANGE:
            raise
        logger.warning("projects not granted, renewal due satellite=%s account=%s: %s", satellite.name, account, error)
        if not credential.is_renewal_due:
            credential.is_renewal_due = True
            revisions.note_change(session)
            outbox.enqueue_satellites_changed(session, (satellite.name,), now)
        return False
    if list(granted) != credential.granted_projects:  # what the source lacks is asked for again and again
        changes = {"projects": [credential.granted_projects, list(granted)], "username": [None, credential.username]}
        actor, resource = audit_log.flow_actor("provision-satellite"), f"satellite:{satellite.name}"
        audit_log.record(session, actor, "credential.grant", resource, changes=changes, now=now)
    credential.granted_projects = list(granted)
    logger.info("projects granted satellite=%s projects=%s", satellite.name, ",".join(granted))
    return True
