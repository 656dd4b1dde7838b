"""Rotation: which credentials their sites shall renew, which are to be deleted at the source, who is late.

Level-triggered: every look starts from the rows. What must not live here: Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, or_, select

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.database import reading
from harbor_satellite.ground_control.models import Credential, Satellite
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.satellites import revisions
from harbor_satellite.ground_control.satellites.accounts import account_of

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.people.audit_log import Actor
    from harbor_satellite.ground_control.satellites.sources import Source

DUE_AT_ONCE: Final = 1000
"""Credentials that are told to renew in one transaction."""
_LEAST: Final = timedelta(days=3)
_FAILURES_IN_A_ROW: Final = 3


@dataclass(frozen=True, slots=True)
class EndedCredential:
    """A credential that nobody needs any more and that is still at the source."""

    credential_id: int
    satellite: str
    account: str
    source_credential_id: str | None


@dataclass(frozen=True, slots=True)
class Deletions:
    """What was deleted at the source, and what could not be."""

    accounts: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WaitingCredential:
    """A credential in use that its site shall renew, or should have."""

    satellite: str
    username: str
    expires_at: datetime | None
    last_seen: datetime | None
    since: datetime | None
    """When it fell due by its age; None: it is due because its permissions cannot be changed."""
    needs: str
    """What happens next: renewal, the grace, or an operator."""


def renewal_before(life_days: int, before_days: int | None) -> timedelta:
    """Return how long before its end a credential is renewed.

    Args:
        life_days: how long credentials live.
        before_days: as an operator wants it; None: a third of the life, three days at least. Never more than half of
            the life, or each credential would be due as soon as it is made.
    """
    life = timedelta(days=life_days)
    wanted = max(_LEAST, life / 3) if before_days is None else timedelta(days=before_days)
    return min(wanted, life / 2)


def mark_due(session: Session, before: timedelta, actor: Actor, now: datetime) -> tuple[str, ...]:
    """Tell sites whose credentials expire before long to renew them; call again while it returns something.

    Returns:
        Their satellites, ``DUE_AT_ONCE`` at most.
    """
    query = (
        select(Credential, Satellite.name)
        .join(Satellite, Satellite.id == Credential.satellite_id)
        .where(_is_live(), Credential.is_renewal_due.is_(False), Credential.expires_at < now + before)
        .order_by(Credential.id)
        .limit(DUE_AT_ONCE)
        # One that a claim, a grant or a report holds right now is told by the next run: nobody waits for the other.
        .with_for_update(of=Credential, skip_locked=True)
    )
    found = session.execute(query).all()
    for row, satellite in found:
        row.is_renewal_due = True
        changes = {"is_renewal_due": [False, True], "expires_at": [None, row.expires_at.isoformat()]}
        audit_log.record(session, actor, "credential.due", f"satellite:{satellite}", changes=changes, now=now)
    if found:
        revisions.note_change(session)
        outbox.enqueue_satellites_changed(session, [satellite for _, satellite in found], now)
    return tuple(satellite for _, satellite in found)


def delete_ended(
    factory: SessionFactory,
    source: Source,
    actor: Actor,
    *,
    grace: timedelta,
    now: datetime,
    satellite: str | None = None,
) -> Deletions:
    """Delete at the source, and then here, what has ended: revoked, or superseded for longer than the grace.

    The source is asked outside any transaction, and each account stands for itself: what fails is tried again with
    the next call. A source that seems to be down is not asked for all of them.

    Args:
        factory: opens sessions.
        source: where the accounts are.
        actor: for the audit log.
        grace: of superseded credentials.
        now: this moment.
        satellite: whose; None: everybody's.
    """
    with reading(factory) as session:
        ended = list_ended(session, grace, now, satellite)
    deleted, problems, failures = list[str](), list[str](), 0
    for one in ended:
        try:
            source.delete(one.account, one.source_credential_id)
        except HarborSatelliteError as error:
            problems.append(f"account {one.account} of satellite {one.satellite}: {error}")
            failures += 1
            if failures == _FAILURES_IN_A_ROW:
                problems.append(f"{len(ended) - len(deleted) - len(problems)} more left for the next run")
                break
            continue
        failures = 0
        with factory.begin() as session:
            _forget(session, one, actor, now)
        deleted.append(one.account)
    return Deletions(tuple(deleted), tuple(problems))


def list_ended(
    session: Session, grace: timedelta, now: datetime, satellite: str | None = None
) -> tuple[EndedCredential, ...]:
    """Return the credentials to delete, of one satellite or of all."""
    query = (
        select(Credential, Satellite.name)
        .join(Satellite, Satellite.id == Credential.satellite_id)
        .where(or_(Credential.revoked_at.is_not(None), Credential.superseded_at <= now - grace))
        .order_by(Credential.id)
    )
    if satellite is not None:
        query = query.where(Satellite.name == satellite)
    return tuple(
        EndedCredential(row.id, name, account_of(row, name), row.source_credential_id)
        for row, name in session.execute(query)
    )


def _forget(session: Session, ended: EndedCredential, actor: Actor, now: datetime) -> None:
    row = session.get(Credential, ended.credential_id, with_for_update=True)
    # SQLite gives the number of a row that is gone to the next one.
    if row is None or account_of(row, ended.satellite) != ended.account:
        return
    session.delete(row)
    revisions.note_change(session)
    changes = {"account": [ended.account, None]}
    audit_log.record(session, actor, "credential.delete", f"satellite:{ended.satellite}", changes=changes, now=now)


def list_waiting(
    session: Session, before: timedelta, expired_grace: timedelta, now: datetime
) -> tuple[WaitingCredential, ...]:
    """Return the credentials in use that are due or expired, those that expire first before the others."""
    query = (
        select(Credential, Satellite)
        .join(Satellite, Satellite.id == Credential.satellite_id)
        .where(_is_live(), or_(Credential.is_renewal_due.is_(True), Credential.expires_at < now))
        .order_by(Credential.expires_at, Credential.id)
    )
    return tuple(
        WaitingCredential(
            satellite=satellite.name,
            username=row.username,
            expires_at=row.expires_at,
            last_seen=satellite.last_seen,
            since=_since(row, before, now),
            needs=_needs(row.expires_at, expired_grace, now),
        )
        for row, satellite in session.execute(query)
    )


def count_renewed(session: Session, since: datetime) -> int:
    """Return how many renewed credentials were first used since a moment."""
    query = select(func.count()).select_from(Credential)
    query = query.where(Credential.renewal_key_hash.is_not(None), Credential.first_used_at >= since)
    return session.scalar(query) or 0


def _since(row: Credential, before: timedelta, now: datetime) -> datetime | None:
    if row.expires_at is None or row.expires_at - before > now:
        return None
    return max(row.created_at, row.expires_at - before)


def _needs(expires_at: datetime | None, expired_grace: timedelta, now: datetime) -> str:
    if expires_at is None or now < expires_at:
        return "renewal, with the site's next report"
    if now < expires_at + expired_grace:
        return f"expired: the site can still renew it until {expires_at + expired_grace:%Y-%m-%d}"
    return "expired for too long: issue a new one-time token"


def _is_live() -> ColumnElement[bool]:
    return Credential.superseded_at.is_(None) & Credential.revoked_at.is_(None)
