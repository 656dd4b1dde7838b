"""Zero touch registration: a one-time token against the satellite's credential.

Exactly one of any number of concurrent claims wins. The site that won may repeat its claim with its
claim key until its first authenticated report, so that a lost answer strands nobody.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.models import Credential, RegistrationToken, Satellite
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.satellites import credentials, satellite_states
from harbor_satellite.ground_control.satellites.satellites import group_names_of
from harbor_satellite.ground_control.tokens import hash_token, verify_token
from harbor_satellite.state.names import SatelliteName, satellite_state_repository, work_pool_name
from harbor_satellite.state.wire import Registration, RegistryAuth

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.people.audit_log import Actor
    from harbor_satellite.ground_control.satellites.sources import Source, SourceCredential

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SiteAddresses:
    """What a site is told about the centre."""

    source_url: str
    """Where it pulls from."""
    prefect_api_url: str
    """What its worker polls; empty: none."""


def claim(
    session: Session,
    source: Source,
    addresses: SiteAddresses,
    *,
    token: SecretStr,
    claim_key: SecretStr | None,
    actor: Actor,
    now: datetime,
) -> Registration:
    """Exchange a one-time token for the satellite's credential; the caller commits.

    The token is consumed by the transaction that keeps the credential: when the source fails, both stay as
    they were, and the claim can be repeated. Credentials from before end with the claim: its site has lost them.

    Args:
        session: the claim's own.
        source: makes the credential.
        addresses: what the site is told.
        token: the one-time token.
        claim_key: who repeats it is the same site.
        actor: which request this is; the satellite's name is put in.
        now: this moment.

    Raises:
        AuthenticationError: the token is unknown, used, expired or revoked; the message does not say which.
        RemoteError: the source cannot be reached or refuses.
    """
    # 1 The satellite's row is the lock: claims of one satellite come one after another, and never beside a deletion.
    found = _find(session, token)
    # 2 One statement decides who wins.
    if not _consume(session, found, claim_key, now) and not _may_repeat(session, found, claim_key):
        raise _refused(found, now)
    # 3 Only the winner, or the winner again, gets here; whatever had a credential of this satellite is out.
    satellite = session.get_one(Satellite, found.satellite_id)
    earlier = credentials.credentials_of(session, satellite, lock=True)
    issued = credentials.issue(session, source, satellite, now)
    ended = credentials.revoke(session, earlier, now)
    credentials.try_delete(session, source, satellite.name, earlier)
    changes = {"username": [", ".join(ended) or None, issued.username]}
    resource = f"satellite:{satellite.name}"
    audit_log.record(session, replace(actor, name=resource), "satellite.claim", resource, changes=changes, now=now)
    # 4 Its first replication does not wait for its schedule.
    satellite_states.ask_for_runs(session, (satellite.name,), now)
    return _registration(session, satellite, issued, addresses)


def registry_auth(issued: SourceCredential, source_url: str) -> RegistryAuth:
    """Return a credential as a site is told it."""
    return RegistryAuth(
        url=source_url.rstrip("/"),
        username=issued.username,
        password=issued.secret,
        expires_at=issued.expires_at,
    )


def _find(session: Session, token: SecretStr) -> RegistrationToken:
    by_hash = select(RegistrationToken).where(RegistrationToken.token_hash == hash_token(token))
    found = session.scalar(by_hash)
    if found is not None:
        session.execute(select(Satellite.id).where(Satellite.id == found.satellite_id).with_for_update())
        found = session.scalar(by_hash.execution_options(populate_existing=True))
    if found is None:
        raise AuthenticationError("invalid token")
    return found


def _consume(session: Session, found: RegistrationToken, claim_key: SecretStr | None, now: datetime) -> bool:
    statement = (
        update(RegistrationToken)
        .where(
            RegistrationToken.id == found.id,
            RegistrationToken.claimed_at.is_(None),
            RegistrationToken.revoked_at.is_(None),
            RegistrationToken.expires_at > now,
        )
        .values(claimed_at=now, claim_key_hash=hash_token(claim_key) if claim_key else None)
        .returning(RegistrationToken.id)
        .execution_options(synchronize_session=False)
    )
    return session.scalar(statement) is not None


def _may_repeat(session: Session, found: RegistrationToken, claim_key: SecretStr | None) -> bool:
    if claim_key is None or not verify_token(claim_key, found.claim_key_hash):
        return False
    # Not its expiry: that ends waiting for a site, and this one has come.
    if found.revoked_at is not None or found.claimed_at is None:
        return False
    used = select(Credential.id).where(
        Credential.satellite_id == found.satellite_id, Credential.first_used_at >= found.claimed_at
    )
    return session.scalar(used.limit(1)) is None


def _refused(found: RegistrationToken, now: datetime) -> AuthenticationError:
    if found.revoked_at is not None:
        reason = "revoked"
    elif found.claimed_at is not None:
        reason = "used"
    else:
        reason = "expired" if found.expires_at <= now else "lost to another claim"
    logger.warning("claim refused satellite_id=%d token_id=%d reason=%s", found.satellite_id, found.id, reason)
    return AuthenticationError("invalid token")


def _registration(
    session: Session, satellite: Satellite, issued: SourceCredential, addresses: SiteAddresses
) -> Registration:
    name = SatelliteName(satellite.name)
    source_url = addresses.source_url.rstrip("/")
    return Registration(
        auth=registry_auth(issued, source_url),
        state=f"{source_url}/{satellite_state_repository(name)}:latest",
        satellite=name,
        prefect_api_url=addresses.prefect_api_url,
        work_pool=work_pool_name(name),
        groups=group_names_of(session, [satellite.id])[satellite.id],
        schedule=satellite.schedule,
    )
