"""HTTP bodies of people: logins, users, API tokens, and the audit log."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_serializer

from harbor_satellite.ground_control.api.schemas import Body, Text
from harbor_satellite.ground_control.models import ApiToken, AuditEvent, User
from harbor_satellite.ground_control.people.api_tokens import DEFAULT_DAYS, LONGEST_DAYS

_Password = Annotated[SecretStr, Field(max_length=1024)]
_Role = Literal["admin", "operator"]


class LoginRequest(Body):
    """A person's name and password."""

    username: Text
    password: _Password


class NewUser(LoginRequest):
    """A person to be."""

    role: _Role = "admin"
    """``operator``: may read everything and change nothing."""


class RoleChange(Body):
    """What a person may do from now on."""

    role: _Role


class PasswordChange(Body):
    """A person's own change of password."""

    current_password: _Password
    new_password: _Password


class PasswordReset(Body):
    """The system administrator's change of somebody's password."""

    new_password: _Password


class UserBody(Body):
    """A person who may call the API."""

    id: int
    username: str
    role: str
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> "UserBody":
        """Build it from a row."""
        return cls(id=user.id, username=user.username, role=user.role, created_at=user.created_at)


class ApiTokenRequest(Body):
    """An API token to be."""

    name: Text
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=LONGEST_DAYS)] = DEFAULT_DAYS
    role: Literal["system_admin", "admin", "operator"] | None = None
    """Not wider than the user's; left out: the user's."""


class ApiTokenBody(Body):
    """An API token, without what it is called with."""

    name: str
    role: str
    """What it may do is the lesser of this and what its user may."""
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    """To the hour."""

    @classmethod
    def of(cls, row: ApiToken) -> "ApiTokenBody":
        """Build it from a row."""
        return cls(
            name=row.name,
            role=row.role,
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
        )


class IssuedApiTokenBody(Body):
    """An API token, shown this once."""

    name: str
    role: str
    token: SecretStr
    """What to send: ``Authorization: Bearer hs_…``."""
    expires_at: datetime

    @field_serializer("token", when_used="json")
    def _reveal(self, token: SecretStr) -> str:
        return token.get_secret_value()


class AuditEventBody(Body):
    """A change, or one that was refused or failed."""

    id: int
    """For ``before``."""
    event_id: str
    """The same in the JSON lines."""
    timestamp: datetime
    actor: str
    source_address: str
    request_id: str
    action: str
    resource: str
    outcome: str
    """``done``, ``refused`` or ``failed``."""
    reason: str
    """Of a refusal or failure."""
    changes: dict[str, Any] | None
    """Field → from and to; secrets are hidden."""

    @classmethod
    def of(cls, row: AuditEvent) -> "AuditEventBody":
        """Build it from a row."""
        return cls(
            id=row.id,
            event_id=row.event_id,
            timestamp=row.occurred_at,
            actor=row.actor,
            source_address=row.source_address,
            request_id=row.request_id,
            action=row.action,
            resource=row.resource,
            outcome=row.outcome,
            reason=row.reason,
            changes=row.changes,
        )
