"""Handlers for people: login, logout, users, API tokens. They parse, call a use case and serialise."""

from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.api.audit_refusals import SESSION_OPEN
from harbor_satellite.ground_control.api.callers import (
    BearerToken,
    Owner,
    Person,
    SharedContext,
    SystemAdmin,
    client_address,
    log_in,
    request_id,
)
from harbor_satellite.ground_control.api.schemas import TokenBody
from harbor_satellite.ground_control.api.schemas_people import (
    ApiTokenBody,
    ApiTokenRequest,
    IssuedApiTokenBody,
    LoginRequest,
    NewUser,
    PasswordChange,
    PasswordReset,
    RoleChange,
    UserBody,
)
from harbor_satellite.ground_control.people import api_tokens, audit_log, users
from harbor_satellite.ground_control.people.audit_log import Actor

router: Final = APIRouter()


@router.post("/login", tags=["login"], summary="Exchange a name and password for a session's bearer token")
def login(request: Request, context: SharedContext, body: LoginRequest, response: Response) -> TokenBody:
    """Open a session; the answer is the same for unknown, locked and wrong."""
    person = log_in(request, context, body.username, body.password)
    actor = Actor(f"user:{person.username}", client_address(request), request_id(request))
    with context.writing() as session:
        issued = users.open_session(session, person, context.options.session_ttl, context.clock())
        audit_log.record(session, actor, SESSION_OPEN, actor.name, now=context.clock())
    response.headers["Cache-Control"] = "no-store"
    return TokenBody(token=issued.token, expires_at=issued.expires_at)


@router.post("/api/logout", tags=["login"], summary="End the session of the bearer token", status_code=204)
def logout(context: SharedContext, owner: Owner, bearer: BearerToken) -> Response:
    """End the caller's session; an API token is ended by deleting it."""
    if bearer is None or owner.principal.token_id is not None:
        raise AuthenticationError("a session's bearer token is needed")
    with context.writing() as session:
        users.close_session(session, SecretStr(bearer))
        owner.record(session, "session.close", owner.actor.name)
    return Response(status_code=204)


@router.get("/api/users", tags=["users"], summary="List admins and operators")
def list_users(context: SharedContext, person: Person) -> list[UserBody]:
    """List all users but the system administrator."""
    del person
    with context.reading() as session:
        return [UserBody.of(user) for user in users.list_users(session)]


@router.post("/api/users", tags=["users"], summary="Make an admin or operator", status_code=201)
def create_user(context: SharedContext, editor: SystemAdmin, body: NewUser) -> UserBody:
    """Make a user; of role ``admin`` unless the body says ``operator``."""
    with context.writing() as session:
        user = users.create_user(session, body.username, body.password, context.clock(), body.role)
        editor.record(session, "user.create", f"user:{user.username}", audit_log.difference({}, {"role": user.role}))
        return UserBody.of(user)


@router.patch("/api/users/password", tags=["users"], summary="Change one's own password", status_code=204)
def change_password(request: Request, context: SharedContext, owner: Owner, body: PasswordChange) -> Response:
    """Change the caller's password; all of the caller's sessions and API tokens end."""
    checked = log_in(request, context, owner.principal.username, body.current_password)
    with context.writing() as session:
        users.set_password(session, checked.username, body.new_password, context.clock())
        owner.record(session, "user.password", owner.actor.name)
    return Response(status_code=204)


@router.get("/api/users/{username}", tags=["users"], summary="Show an admin or operator")
def show_user(context: SharedContext, person: Person, username: str) -> UserBody:
    """Show one user."""
    del person
    with context.reading() as session:
        return UserBody.of(users.show_user(session, username))


@router.delete("/api/users/{username}", tags=["users"], summary="Delete an admin or operator", status_code=204)
def delete_user(context: SharedContext, editor: SystemAdmin, username: str) -> Response:
    """Delete a user with all sessions and API tokens."""
    with context.writing() as session:
        role = users.delete_user(session, editor.principal, username)
        editor.record(session, "user.delete", f"user:{username}", audit_log.difference({"role": role}, {}))
    return Response(status_code=204)


@router.patch("/api/users/{username}/role", tags=["users"], summary="Make an admin an operator, or the reverse")
def change_role(context: SharedContext, editor: SystemAdmin, username: str, body: RoleChange) -> UserBody:
    """Set what a user may do, at once; the API tokens of who becomes an operator stay an operator's."""
    with context.writing() as session:
        before = users.set_role(session, username, body.role, context.clock())
        changes = audit_log.difference({"role": before}, {"role": body.role})
        editor.record(session, "user.role", f"user:{username}", changes)
        return UserBody.of(users.show_user(session, username))


@router.patch(
    "/api/users/{username}/password", tags=["users"], summary="Set an admin's or operator's password", status_code=204
)
def reset_password(context: SharedContext, editor: SystemAdmin, username: str, body: PasswordReset) -> Response:
    """Set somebody's password; all of that user's sessions and API tokens end, and a lock is lifted."""
    with context.writing() as session:
        users.set_password(session, username, body.new_password, context.clock())
        editor.record(session, "user.password", f"user:{username}")
    return Response(status_code=204)


_User = Annotated[str, Query(max_length=128, description="Another user's; only for the system administrator")]


def _owner_name(person: users.Principal, user: str) -> str:
    if user and user != person.username and not person.is_system_admin:
        raise HTTPException(403, "only the system administrator may see and end other users' tokens")
    return user or person.username


@router.get("/api/tokens", tags=["tokens"], summary="List one's API tokens")
def list_tokens(context: SharedContext, person: Person, user: _User = "") -> list[ApiTokenBody]:
    """List the caller's tokens, or those of another user, that have not expired."""
    owner = _owner_name(person, user)
    with context.reading() as session:
        return [ApiTokenBody.of(row) for row in api_tokens.list_tokens(session, owner, context.clock())]


@router.post("/api/tokens", tags=["tokens"], summary="Make an API token", status_code=201)
def create_token(context: SharedContext, owner: Owner, body: ApiTokenRequest, response: Response) -> IssuedApiTokenBody:
    """Make a token of the caller for a program; it is shown this once."""
    with context.writing() as session:
        issued = api_tokens.issue_token(
            session, owner.principal, body.name, days=body.expires_in_days, role=body.role, now=context.clock()
        )
        row = issued.row
        changes = audit_log.difference({}, {"role": row.role, "expires_at": row.expires_at.isoformat()})
        owner.record(session, "token.create", f"token:{owner.principal.username}/{row.name}", changes)
    response.headers["Cache-Control"] = "no-store"
    return IssuedApiTokenBody(name=row.name, role=row.role, token=issued.token, expires_at=row.expires_at)


@router.delete("/api/tokens/{name}", tags=["tokens"], summary="End an API token", status_code=204)
def delete_token(context: SharedContext, owner: Owner, name: str, user: _User = "") -> Response:
    """End a token of the caller, or of another user."""
    username = _owner_name(owner.principal, user)
    with context.writing() as session:
        api_tokens.delete_token(session, username, name)
        owner.record(session, "token.delete", f"token:{username}/{name}")
    return Response(status_code=204)
