"""API tokens: what programs call the API with, for a person. Use cases over a ``Session`` and plain values.

A token ends with its time, its user, or its user's password; what it may do is the lesser of its own role and the
user's of the moment. The role is written into it when it is made, so that promoting a user widens no token.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from harbor_satellite.errors import AuthenticationError, ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control.models import ApiToken, User
from harbor_satellite.ground_control.people.users import ROLES, Principal, check_current
from harbor_satellite.ground_control.tokens import API_TOKEN_PREFIX, hash_token, mint_api_token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

LONGEST_DAYS: Final = 365
DEFAULT_DAYS: Final = 90
_MAX_COUNT: Final = 100  # of one user
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_USE_NOTED_EVERY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class IssuedApiToken:
    """An API token just made; it is shown this once."""

    row: ApiToken
    token: SecretStr


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Who called with a token, and whether that is to be noted."""

    principal: Principal
    is_to_be_noted: bool


def is_api_token(token: SecretStr) -> bool:
    """Tell an API token from a session's by how it begins."""
    return token.get_secret_value().startswith(API_TOKEN_PREFIX)


def issue_token(
    session: Session, owner: Principal, name: str, *, days: int, role: str | None, now: datetime
) -> IssuedApiToken:
    """Make a token of the caller.

    Args:
        session: the caller commits.
        owner: who calls; not with an API token, so that one that was stolen makes no others.
        name: one of this user's that is not taken.
        days: how long it lives.
        role: not wider than the user's; None: the user's.
        now: this moment.

    Raises:
        InvalidInputError: a bad name, days or role, too many tokens, or the caller came with an API token.
        ConflictError: the name is taken.
        AuthenticationError: the user is gone, or has another password since.
    """
    if owner.token_id is not None:
        raise InvalidInputError("an API token cannot make API tokens; log in")
    check_current(session, owner)
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError("a token's name has 1 to 128 characters of a-z, A-Z, 0-9, '.', '_', '-'")
    if not 1 <= days <= LONGEST_DAYS:
        raise InvalidInputError(f"expires_in_days must be 1 to {LONGEST_DAYS}")
    role = role or owner.role
    if role not in ROLES or narrower(role, owner.role) != role:
        raise InvalidInputError(f"role must be one of {', '.join(ROLES[: ROLES.index(owner.role) + 1])}")
    session.execute(delete(ApiToken).where(ApiToken.user_id == owner.user_id, ApiToken.expires_at <= now))
    if (session.scalar(select(func.count()).where(ApiToken.user_id == owner.user_id)) or 0) >= _MAX_COUNT:
        raise InvalidInputError(f"user {owner.username!r} has {_MAX_COUNT} tokens already; delete one")
    token = mint_api_token()
    row = ApiToken(
        user_id=owner.user_id,
        name=name,
        role=role,
        token_hash=hash_token(token),
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(f"token {name!r} already exists") from error
    logger.info("api token made username=%s token=%s role=%s", owner.username, name, role)
    return IssuedApiToken(row, token)


def resume_token(session: Session, token: SecretStr, now: datetime) -> TokenUse:
    """Tell who calls with an API token; raises ``AuthenticationError`` if it does not hold (any more)."""
    query = (
        select(ApiToken, User)
        .join(User, User.id == ApiToken.user_id)
        .where(ApiToken.token_hash == hash_token(token), ApiToken.expires_at > now)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        raise AuthenticationError("invalid or expired API token")
    row, user = found
    principal = Principal(user.id, user.username, narrower(row.role, user.role), row.id)
    return TokenUse(principal, row.last_used_at is None or now - row.last_used_at >= _USE_NOTED_EVERY)


def note_use(session: Session, principal: Principal, now: datetime) -> None:
    """Note that the token of a caller was used, unless another request just did."""
    is_due = or_(ApiToken.last_used_at.is_(None), ApiToken.last_used_at <= now - _USE_NOTED_EVERY)
    session.execute(update(ApiToken).where(ApiToken.id == principal.token_id, is_due).values(last_used_at=now))


def list_tokens(session: Session, username: str, now: datetime) -> Sequence[ApiToken]:
    """Return a user's tokens that still hold, by name; of a user that does not exist: none."""
    query = select(ApiToken).join(User, User.id == ApiToken.user_id)
    return session.scalars(
        query.where(User.username == username, ApiToken.expires_at > now).order_by(ApiToken.name)
    ).all()


def delete_token(session: Session, username: str, name: str) -> None:
    """End a user's token; raises ``NotFoundError``."""
    row = None
    if _NAME.fullmatch(name) is not None:
        query = select(ApiToken).join(User, User.id == ApiToken.user_id)
        row = session.scalar(query.where(User.username == username, ApiToken.name == name))
    if row is None:
        raise NotFoundError(f"no token {name[:128]!r} of user {username[:128]!r}")
    session.delete(row)


def narrower(one: str, other: str) -> str:
    """Return the role of the two that may do less."""
    return min(one, other, key=ROLES.index)
