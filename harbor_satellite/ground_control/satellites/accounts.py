"""Names of satellites' accounts at the source: ``NAME``, then ``NAME-r1``, ``NAME-r2``, …; none is used twice.

What must not live here: talking to the source (``credentials.py``).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from harbor_satellite.ground_control.models import Credential, RetiredAccount, Satellite

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_LONGEST_STEM: Final = 100  # characters; with a number behind it, still short enough for every kind of source


def take_account_name(session: Session, satellite: Satellite) -> str:
    """Return a name that no account has, and count it; the satellite's row is locked by the caller.

    Accounts of deleted satellites count as well, as long as they may still be at the source.
    """
    while True:
        name = account_name(satellite.name, satellite.credential_serial)
        satellite.credential_serial += 1
        if not is_taken(session, name):
            return name


def account_name(satellite: str, serial: int) -> str:
    """Return the name of a satellite's account, the first (0) being its own name, as the original has it."""
    if serial == 0:
        return satellite
    stem = satellite
    if len(stem) > _LONGEST_STEM:
        mark = sha256(satellite.encode()).hexdigest()[:8]
        stem = f"{satellite[: _LONGEST_STEM - 9].rstrip('._-')}-{mark}"
    return f"{stem}-r{serial}"


def account_of(credential: Credential, satellite: str) -> str:
    """Return the name of a credential's account; those made before accounts had numbers have the satellite's name."""
    return credential.account_name or satellite


def is_taken(session: Session, name: str) -> bool:
    """Tell whether an account of this name is a satellite's, or may still be at the source."""
    by_name = select(Credential.id).where(Credential.account_name == name).limit(1)
    unnamed = (
        select(Credential.id)
        .join(Satellite, Satellite.id == Credential.satellite_id)
        .where(Satellite.name == name, Credential.account_name.is_(None))
        .limit(1)
    )
    retired = session.get(RetiredAccount, name)
    return retired is not None or any(session.scalar(query) is not None for query in (by_name, unnamed))
