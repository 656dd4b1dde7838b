"""Logging in with a name and password: locks, failures that are counted, and hashes kept up to date.

Apart from ``users`` because it takes the session factory: hashing must not hold a transaction. What must not live
here: limits by address, which need no database (``throttle``, ``callers``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import update

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.database import reading
from harbor_satellite.ground_control.models import LoginAttempts, User
from harbor_satellite.ground_control.people.passwords import hash_password, needs_rehash, verify_password
from harbor_satellite.ground_control.people.users import LockoutPolicy, Principal, find_user

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory

logger = logging.getLogger(__name__)


class LoginRefusedError(AuthenticationError):
    """A name and password do not open a session; the caller learns no more, the audit log does.

    Args:
        username: of a user that exists; empty: there is none (what was sent may be a password in the wrong field).
        reason: why.
    """

    def __init__(self, username: str, reason: str) -> None:
        super().__init__("invalid credentials")
        self.username = username
        self.reason = reason


def authenticate(
    factory: SessionFactory,
    username: str,
    password: SecretStr,
    policy: LockoutPolicy,
    now: datetime,
    *,
    passes_lock: bool = False,
) -> Principal:
    """Tell who is behind a name and password, counting failures; takes the factory to hash between transactions.

    Args:
        factory: of sessions.
        username: as the caller says.
        password: as the caller says.
        policy: when an account is locked.
        now: this moment.
        passes_lock: whether the caller is known from before, so that a lock that others caused does not hold for it.

    Raises:
        LoginRefusedError: unknown user, wrong password or locked; the message is the same for all three.
    """
    with reading(factory) as session:
        user = find_user(session, username)
    # Hashing takes long and must not hold a transaction; an unknown user costs as much as a known one.
    is_right = verify_password(password, user.password_hash if user else None)
    if user is None:
        raise LoginRefusedError("", "unknown user")
    with reading(factory) as session:
        has_failed_before = session.get(LoginAttempts, user.id) is not None
    # The usual case, a right password and nothing before it, writes nothing.
    if not is_right or has_failed_before:
        with factory.begin() as session:
            refusal = _note_attempt(session, user.id, policy, now, succeeded=is_right, passes_lock=passes_lock)
        if refusal:
            raise LoginRefusedError(user.username, refusal)
    known = _rehash(factory, user, password) if needs_rehash(user.password_hash) else user.password_hash
    return Principal(user.id, user.username, user.role, password_hash=known)


def _rehash(factory: SessionFactory, user: User, password: SecretStr) -> str:
    """Hash a password that was right with today's parameters, unless it was changed meanwhile; return that hash."""
    fresh = hash_password(password)
    unchanged = (User.id == user.id, User.password_hash == user.password_hash)
    with factory.begin() as session:
        session.execute(update(User).where(*unchanged).values(password_hash=fresh))
    logger.info("password hashed anew user_id=%d", user.id)
    return fresh


def _note_attempt(
    session: Session, user_id: int, policy: LockoutPolicy, now: datetime, *, succeeded: bool, passes_lock: bool
) -> str:
    """Count the attempt; return why it may not pass: wrong, or locked by others meanwhile; empty: it may."""
    # The user's row is the lock: attempts at one account are counted one after another.
    session.execute(update(User).where(User.id == user_id).values(updated_at=User.updated_at))
    attempts = session.get(LoginAttempts, user_id)
    is_locked = attempts is not None and attempts.locked_until is not None and now < attempts.locked_until
    if is_locked:
        # The lock stays for everybody else.
        return "" if succeeded and passes_lock else "account locked"
    if succeeded:
        if attempts is not None:
            session.delete(attempts)
        return ""
    if attempts is None:
        attempts = LoginAttempts(user_id=user_id, failed_count=0, last_failed_at=now)
        session.add(attempts)
    was_locked = attempts.locked_until is not None
    attempts.failed_count = 1 if was_locked else attempts.failed_count + 1
    attempts.last_failed_at = now
    attempts.locked_until = None
    if attempts.failed_count >= policy.max_failures:
        attempts.locked_until = now + policy.lockout
        logger.warning("account locked user_id=%d seconds=%d", user_id, policy.lockout.total_seconds())
        return "wrong password; account locked now"
    return "wrong password"
