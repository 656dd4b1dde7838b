"""People and their sessions: who may call the API. Use cases over a ``Session`` and plain values.

Three roles: one ``system_admin`` named ``admin`` and the admins that it makes, as in the original; and operators,
who read everything and change nothing. Tokens for programs are in ``api_tokens``.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from harbor_satellite.errors import AuthenticationError, ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control.models import ApiToken, LoginAttempts, User, UserSession
from harbor_satellite.ground_control.people.passwords import check_password, hash_password
from harbor_satellite.ground_control.tokens import hash_token, mint_session_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

SYSTEM_ADMIN: Final = "system_admin"
ADMIN: Final = "admin"
OPERATOR: Final = "operator"
ROLES: Final = (OPERATOR, ADMIN, SYSTEM_ADMIN)
"""Each may do what those before it may."""
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
    """What the caller may do: the user's role, or the narrower one of its API token."""
    token_id: int | None = None
    """The API token that it calls with; None: a session, or name and password."""
    password_hash: str | None = field(default=None, repr=False, compare=False)
    """The user's when the caller was let in; see ``check_current``."""

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


def create_user(session: Session, username: str, password: SecretStr, now: datetime, role: str = ADMIN) -> User:
    """Make an admin or operator.

    Raises:
        InvalidInputError: bad or reserved name, a role that is neither, or a password that breaks the policy.
        ConflictError: the name is taken.
    """
    if _USERNAME.fullmatch(username) is None:
        raise InvalidInputError("a username has 1 to 128 characters of a-z, A-Z, 0-9, '.', '_', '-', '@', '+'")
    if username == FIRST_USER:
        raise InvalidInputError(f"username {FIRST_USER!r} is reserved")
    _check_role(role)
    check_password(password)
    return _add_user(session, username, role, password, now)


def list_users(session: Session) -> Sequence[User]:
    """Return all admins and operators by name; the system administrator is not shown, as in the original."""
    return session.scalars(select(User).where(User.role != SYSTEM_ADMIN).order_by(User.username)).all()


def show_user(session: Session, username: str) -> User:
    """Return one admin or operator; raises ``NotFoundError``."""
    user = find_user(session, username)
    if user is None or user.role == SYSTEM_ADMIN:
        raise NotFoundError(f"no user {username[:128]!r}")
    return user


def set_role(session: Session, username: str, role: str, now: datetime) -> str:
    """Make a user an admin or an operator, at once: also for its open sessions.

    Its API tokens never get wider by it: what they may do is the lesser of their own role and the user's, and
    a user who becomes an operator keeps operator's tokens only.

    Returns:
        The role that the user had.

    Raises:
        InvalidInputError: neither of the two roles.
        NotFoundError: there is no such user; the system administrator's role cannot change.
    """
    _check_role(role)
    user = show_user(session, username)
    before, user.role = user.role, role
    user.updated_at = now
    if role == OPERATOR:
        session.execute(update(ApiToken).where(ApiToken.user_id == user.id).values(role=OPERATOR))
    return before


def delete_user(session: Session, principal: Principal, username: str) -> str:
    """Delete a user with all sessions and tokens, and return the role that it had.

    Raises:
        InvalidInputError: oneself, or the system administrator.
        NotFoundError: there is no such user.
    """
    if username in {principal.username, FIRST_USER}:
        raise InvalidInputError(f"user {username!r} cannot be deleted")
    user = show_user(session, username)
    session.delete(user)
    return user.role


def set_password(session: Session, username: str, password: SecretStr, now: datetime) -> None:
    """Set a user's password, end its sessions and API tokens, and lift its lock.

    Raises:
        InvalidInputError: the password breaks the policy.
        NotFoundError: there is no such user.
    """
    check_password(password)
    user = find_user(session, username)
    if user is None:
        raise NotFoundError(f"no user {username[:128]!r}")
    user.password_hash = hash_password(password)
    user.updated_at = now
    # Whoever changes a password because somebody knew it must not have to think of what that one made with it.
    session.execute(delete(UserSession).where(UserSession.user_id == user.id))
    session.execute(delete(ApiToken).where(ApiToken.user_id == user.id))
    session.execute(delete(LoginAttempts).where(LoginAttempts.user_id == user.id))


def open_session(session: Session, principal: Principal, ttl: timedelta, now: datetime) -> IssuedSession:
    """Open a session for an authenticated user; sessions that ended are cleared away.

    Raises:
        AuthenticationError: the user is gone, or has another password since.
    """
    check_current(session, principal)
    token = mint_session_token()
    session.execute(delete(UserSession).where(UserSession.expires_at <= now))
    session.add(
        UserSession(user_id=principal.user_id, token_hash=hash_token(token), expires_at=now + ttl, created_at=now)
    )
    return IssuedSession(token, now + ttl)


def check_current(session: Session, principal: Principal) -> None:
    """Lock the user's row, and refuse who was let in before its password changed or it was deleted.

    A change of password ends sessions and tokens; none may be made beside it by who knew the old one.

    Raises:
        AuthenticationError: the user is gone, or has another password since.
    """
    held = session.scalar(select(User.password_hash).where(User.id == principal.user_id).with_for_update())
    if held is None or (principal.password_hash is not None and held != principal.password_hash):
        raise AuthenticationError("invalid credentials")


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
    return Principal(user.id, user.username, user.role, password_hash=user.password_hash)


def close_session(session: Session, token: SecretStr) -> None:
    """End the session of a bearer token."""
    session.execute(delete(UserSession).where(UserSession.token_hash == hash_token(token)))


def find_user(session: Session, username: str) -> User | None:
    """Return a user of any role, or None; odd names are nobody's."""
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


def _check_role(role: str) -> None:
    if role not in {ADMIN, OPERATOR}:
        raise InvalidInputError(f"role must be {ADMIN!r} or {OPERATOR!r}, not {role[:32]!r}")
