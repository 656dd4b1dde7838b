"""What somebody at the centre's own machine may do about people: whoever holds the database needs no login."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import ConflictError
from harbor_satellite.ground_control.people import audit_log, users
from harbor_satellite.ground_control.people.audit_log import Actor

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sqlalchemy.orm import Session

CONSOLE: Final = Actor("console")
"""Who acts in the audit log."""


def set_up_person(session: Session, username: str, password: SecretStr, *, role: str, is_reset: bool) -> str:
    """Make a person, or set a person's password, and return a sentence about it.

    Args:
        session: the caller commits.
        username: ``admin`` is the system administrator.
        password: follows the policy.
        role: ``admin`` or ``operator``; of anybody but ``admin``, and of nobody who is there already.
        is_reset: the person is there already; its sessions, API tokens and lock end.

    Raises:
        InvalidInputError: a bad name, role or password.
        ConflictError: the name is taken, and this is no reset.
        NotFoundError: a reset, and there is no such user.
    """
    now = datetime.now(UTC)
    if is_reset:
        users.set_password(session, username, password, now)
        audit_log.record(session, CONSOLE, "user.password", f"user:{username}", now=now)
        return f"the password of {username} is set; its sessions and API tokens have ended"
    if username == users.FIRST_USER:
        if not users.ensure_first_user(session, password, now):
            raise ConflictError(f"user {username!r} already exists; --reset sets its password")
        role = users.SYSTEM_ADMIN
    else:
        users.create_user(session, username, password, now, role)
    changes = audit_log.difference({}, {"role": role})
    audit_log.record(session, CONSOLE, "user.create", f"user:{username}", changes=changes, now=now)
    return f"user {username} is made, with role {role}"
