"""People and their sessions: who may call the API. Use cases over a ``Session`` and plain values.

Two roles, as in the original: one ``system_admin`` named ``admin``, and admins that it makes.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from harbor_satellite.errors import AuthenticationError, ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control.database import reading
from harbor_satellite.ground_control.models import LoginAttempts, User, UserSession
from harbor_satellite.ground_control.passwords import check_password, hash_password, verify_password
from harbor_satellite.ground_control.tokens import hash_token, mint_session_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory

logger = logging.getLogger(__name__)

SYSTEM_ADMIN: Final = "system_admin"
ADMIN: Final = "admin"
OPERATOR: Final = "operator"
FIRST_USER: Final = "admin"

_USERNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


@dataclass(frozen=True, slots=True)
class LockoutPolicy:
    """When guessing a password ends for a while."""

    max_failures: int = 5
    lockout: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling the API."""

    user_id: int
    username: str
    role: str

    @property
    def is_system_admin(self) -> bool:
        """Whether this one may manage users and delete groups."""
        return self.role == SYSTEM_ADMIN

    @property
    def is_operator(self) -> bool:
        """Whether this one may read everything and change nothing."""
        return self.role == OPERATOR


@dataclass(frozen=True, slots=True)
class IssuedSession:
    """A session just opened; its token is shown this once."""

    token: SecretStr
    expires_at: datetime


def ensure_first_user(session: Session, password: SecretStr | None, now: datetime) -> bool:
    """Make the user ``admin`` if there is no system administrator yet.

    Returns:
        Whether it was made now.

    Raises:
        InvalidInputError: it is needed and the password is missing or breaks the policy.
    """
    if session.scalar(select(User.id).where(User.role == SYSTEM_ADMIN)) is not None:
        return False
    if password is None:
        raise InvalidInputError("the first start needs a password for the user admin")
    check_password(password)
    _add_user(session, FIRST_USER, SYSTEM_ADMIN, password, now)
    return True


def create_user(session: Session, username: str, password: SecretStr, now: datetime) -> User:
    """Make an admin.

    Raises:
        InvalidInputError: bad or reserved name, or a password that breaks the policy.
        ConflictError: the name is taken.
    """
    if _USERNAME.fullmatch(username) is None:
        raise InvalidInputError("a username has 1 to 128 characters of a-z, A-Z, 0-9, '.', '_', '-', '@', '+'")
    if username == FIRST_USER:
        raise InvalidInputError(f"username {FIRST_USER!r} is reserved")
    check_password(password)
    return _add_user(session, username, ADMIN, password, now)


def list_users(session: Session) -> Sequence[User]:
    """Return all admins by name; the system administrator is not shown, as in the original."""
    return session.scalars(select(User).where(User.role != SYSTEM_ADMIN).order_by(User.username)).all()


def show_user(session: Session, username: str) -> User:
    """Return one admin; raises ``NotFoundError``."""
    user = _find(session, username)
    if user is None or user.role == SYSTEM_ADMIN:
        raise NotFoundError(f"no user {username[:128]!r}")
    return user


def delete_user(session: Session, principal: Principal, username: str) -> None:
    """Delete an admin with all sessions.

    Raises:
        InvalidInputError: oneself, or the system administrator.
        NotFoundError: there is no such user.
    """
    if username in {principal.username, FIRST_USER}:
        raise InvalidInputError(f"user {username!r} cannot be deleted")
    session.delete(show_user(session, username))


def set_password(session: Session, username: str, password: SecretStr, now: datetime) -> None:
    """Set a user's password, end its sessions and lift its lock.

    Raises:
        InvalidInputError: the password breaks the policy.
        NotFoundError: there is no such user.
    """
    check_password(password)
    user = _find(session, username)
    if user is None:
        raise NotFoundError(f"no user {username[:128]!r}")
    user.password_hash = hash_password(password)
    user.updated_at = now
    session.execute(delete(UserSession).where(UserSession.user_id == user.id))
    session.execute(delete(LoginAttempts).where(LoginAttempts.user_id == user.id))


def authenticate(
    factory: SessionFactory, username: str, password: SecretStr, policy: LockoutPolicy, now: datetime
) -> Principal:
    """Tell who is behind a name and password, counting failures; takes the factory to hash between transactions.

    Raises:
        AuthenticationError: unknown user, wrong password or locked; the message is the same for all three.
    """
    with reading(factory) as session:
        user = _find(session, username)
    # Hashing takes long and must not hold a transaction; an unknown user costs as much as a known one.
    is_right = verify_password(password, user.password_hash if user else None)
    if user is None:
        raise AuthenticationError("invalid credentials")
    with reading(factory) as session:
        has_failed_before = session.get(LoginAttempts, user.id) is not None
    # The usual case, a right password and nothing before it, writes nothing.
    if not is_right or has_failed_before:
        with factory.begin() as session:
            is_allowed = _note_attempt(session, user.id, policy, now, succeeded=is_right)
        if not is_allowed:
            raise AuthenticationError("invalid credentials")
    return Principal(user.id, user.username, user.role)


def open_session(session: Session, principal: Principal, ttl: timedelta, now: datetime) -> IssuedSession:
    """Open a session for an authenticated user; sessions that ended are cleared away."""
    token = mint_session_token()
    session.execute(delete(UserSession).where(UserSession.expires_at <= now))
    session.add(
        UserSession(user_id=principal.user_id, token_hash=hash_token(token), expires_at=now + ttl, created_at=now)
    )
    return IssuedSession(token, now + ttl)


def resume_session(session: Session, token: SecretStr, now: datetime) -> Principal:
    """Tell who a bearer token belongs to; raises ``AuthenticationError`` if it does not hold (any more)."""
    query = (
        select(User)
        .join(UserSession, UserSession.user_id == User.id)
        .where(UserSession.token_hash == hash_token(token), UserSession.expires_at > now)
    )
    user = session.scalar(query)
    if user is None:
        raise AuthenticationError("invalid or expired session")
    return Principal(user.id, user.username, user.role)


def close_session(session: Session, token: SecretStr) -> None:
    """End the session of a bearer token."""
    session.execute(delete(UserSession).where(UserSession.token_hash == hash_token(token)))


def _find(session: Session, username: str) -> User | None:
    if _USERNAME.fullmatch(username) is None:
        return None
    return session.scalar(select(User).where(User.username == username))


def _add_user(session: Session, username: str, role: str, password: SecretStr, now: datetime) -> User:
    user = User(username=username, password_hash=hash_password(password), role=role, created_at=now, updated_at=now)
    session.add(user)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(f"user {username!r} already exists") from error
    logger.info("user created username=%s role=%s", username, role)
    return user


def _note_attempt(session: Session, user_id: int, policy: LockoutPolicy, now: datetime, *, succeeded: bool) -> bool:
    """Count the attempt; return whether it may pass: right, and not locked by others meanwhile."""
    # The user's row is the lock: attempts at one account are counted one after another.
    session.execute(update(User).where(User.id == user_id).values(updated_at=User.updated_at))
    attempts = session.get(LoginAttempts, user_id)
    is_locked = attempts is not None and attempts.locked_until is not None and now < attempts.locked_until
    if is_locked:
        return False
    if succeeded:
        if attempts is not None:
            session.delete(attempts)
        return True
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
    return False
