"""Renewal: a site asks, with the credential that it has, for the next one; no moment without one that works.

The new one is made beside the old one and handed over; its first use supersedes the old one. Whoever asks again
has lost the answer: the one that was never used is replaced. Of several who ask at once, the last one has the one
that counts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.models import Credential, Satellite
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.people.audit_log import Actor
from harbor_satellite.ground_control.satellites import credentials
from harbor_satellite.ground_control.tokens import hash_token

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity
    from harbor_satellite.ground_control.satellites.sources import Source, SourceCredential

logger = logging.getLogger(__name__)

DEFAULT_GRACE: Final = timedelta(days=90)
"""How long after its end a credential may still ask for another one: a site may be away for weeks."""


@dataclass(frozen=True, slots=True)
class RenewalRequest:
    """Who asks, and how it can ask again."""

    identity: SatelliteIdentity
    renewal_key: SecretStr
    expired_grace: timedelta = DEFAULT_GRACE
    source_address: str = ""
    request_id: str = ""


def renew(session: Session, source: Source, request: RenewalRequest, now: datetime) -> SourceCredential:
    """Make the next credential of a satellite; the one that it asks with stays as it is.

    Raises:
        AuthenticationError: the credential that it asks with is gone, revoked or expired for too long.
        RemoteError: the source cannot be reached or refuses; nothing has changed then.
    """
    identity = request.identity
    # 1 The satellite's row is the lock: renewals, claims and deletions of one satellite come one after another.
    locked = select(Satellite).where(Satellite.id == identity.satellite_id).with_for_update()
    satellite = session.scalar(locked.execution_options(populate_existing=True))
    present = session.get(Credential, identity.credential_id, populate_existing=True)
    if satellite is None or present is None or present.satellite_id != satellite.id:
        raise AuthenticationError("invalid satellite credentials")
    credentials.check_usable(present, satellite, now, request.expired_grace)
    # 2 Asking is using: what it asks with has arrived. What was made since, nobody has used.
    credentials.note_first_use(session, identity, now)
    unused = [
        row
        for row in credentials.credentials_of(session, satellite, lock=True)
        if row.id > present.id and row.first_used_at is None
    ]
    asked_by = hash_token(request.renewal_key)
    is_repeated = any(row.renewal_key_hash == asked_by for row in unused)
    # 3 The next one first, then away with those before it: whatever the source does not delete now, it does later.
    issued = credentials.issue(session, source, satellite, now, renewal_key=request.renewal_key)
    credentials.revoke(session, unused, now)
    credentials.try_delete(session, source, satellite.name, unused)
    resource = f"satellite:{satellite.name}"
    actor = Actor(resource, request.source_address, request.request_id)
    changes = {"username": [present.username, issued.username]}
    audit_log.record(session, actor, "credential.renew", resource, changes=changes, now=now)
    logger.info("credential renewed satellite=%s username=%s repeated=%s", satellite.name, issued.username, is_repeated)
    return issued
