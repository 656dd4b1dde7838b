"""Handlers for people: login, logout, users. They parse, call a use case and serialise."""

from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control import users
from harbor_satellite.ground_control.callers import (
    BearerToken,
    Person,
    SharedContext,
    SystemAdmin,
    client_address,
    log_in,
)
from harbor_satellite.ground_control.schemas import (
    LoginRequest,
    PasswordChange,
    PasswordReset,
    TokenBody,
    UserBody,
)

router: Final = APIRouter()


@router.post("/login", tags=["login"], summary="Exchange a name and password for a session's bearer token")
def login(request: Request, context: SharedContext, body: LoginRequest) -> TokenBody:
    """Open a session; the answer is the same for unknown, locked and wrong."""
    person = log_in(context, client_address(request), body.username, body.password)
    with context.writing() as session:
        issued = users.open_session(session, person, context.options.session_ttl, context.clock())
    return TokenBody(token=issued.token, expires_at=issued.expires_at)


@router.post("/api/logout", tags=["login"], summary="End the session of the bearer token", status_code=204)
def logout(context: SharedContext, person: Person, bearer: BearerToken) -> Response:
    """End the caller's session."""
    del person
    if bearer is None:
        raise AuthenticationError("a session's bearer token is needed")
    with context.writing() as session:
        users.close_session(session, SecretStr(bearer))
    return Response(status_code=204)


@router.get("/api/users", tags=["users"], summary="List admins")
def list_users(context: SharedContext, person: Person) -> list[UserBody]:
    """List all users but the system administrator."""
    del person
    with context.reading() as session:
        return [UserBody.of(user) for user in users.list_users(session)]


@router.post("/api/users", tags=["users"], summary="Make an admin", status_code=201)
def create_user(context: SharedContext, person: SystemAdmin, body: LoginRequest) -> UserBody:
    """Make a user of role ``admin``."""
    del person
    with context.writing() as session:
        return UserBody.of(users.create_user(session, body.username, body.password, context.clock()))


@router.patch("/api/users/password", tags=["users"], summary="Change one's own password", status_code=204)
def change_password(request: Request, context: SharedContext, person: Person, body: PasswordChange) -> Response:
    """Change the caller's password; all of the caller's sessions end."""
    checked = log_in(context, client_address(request), person.username, body.current_password)
    with context.writing() as session:
        users.set_password(session, checked.username, body.new_password, context.clock())
    return Response(status_code=204)


@router.get("/api/users/{username}", tags=["users"], summary="Show an admin")
def show_user(context: SharedContext, person: Person, username: str) -> UserBody:
    """Show one user."""
    del person
    with context.reading() as session:
        return UserBody.of(users.show_user(session, username))


@router.delete("/api/users/{username}", tags=["users"], summary="Delete an admin", status_code=204)
def delete_user(context: SharedContext, person: SystemAdmin, username: str) -> Response:
    """Delete a user with all sessions."""
    with context.writing() as session:
        users.delete_user(session, person.principal, username)
    return Response(status_code=204)


@router.patch("/api/users/{username}/password", tags=["users"], summary="Set an admin's password", status_code=204)
def reset_password(context: SharedContext, person: SystemAdmin, username: str, body: PasswordReset) -> Response:
    """Set somebody's password; all of that user's sessions end."""
    del person
    with context.writing() as session:
        users.set_password(session, username, body.new_password, context.clock())
    return Response(status_code=204)
