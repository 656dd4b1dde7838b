"""Who is calling: dependencies that turn an ``Authorization`` header into a person or a satellite."""

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Request
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase
from pydantic import SecretStr
from sqlalchemy.orm import Session

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.api.asgi import REQUEST_ID_KEY
from harbor_satellite.ground_control.api.audit_refusals import note_caller, note_refused_login
from harbor_satellite.ground_control.api.context import Context
from harbor_satellite.ground_control.api.error_answers import CHALLENGE
from harbor_satellite.ground_control.people import api_tokens, audit_log, logins, users
from harbor_satellite.ground_control.people.audit_log import Actor
from harbor_satellite.ground_control.people.users import Principal

_LONGEST_HEADER: Final = 4096  # characters


class AuthorizationHeader(SecurityBase):
    """Gives the credentials of one scheme, or None; exists so that the API's documentation names it."""

    def __init__(self, scheme: str, description: str) -> None:
        self.scheme_name = scheme
        self.model = HTTPBase(scheme=scheme, description=description)

    async def __call__(self, request: Request) -> str | None:  # async: not worth a thread
        """Return what follows the scheme's name in the header."""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        is_mine = scheme.lower() == self.scheme_name and len(value) <= _LONGEST_HEADER
        return value.strip() if is_mine else None


_bearer: Final = AuthorizationHeader(
    "bearer", "A session from POST /login, or an API token (hs_…) from POST /api/tokens."
)
basic_header: Final = AuthorizationHeader("basic", "A user's name and password, or a satellite's credential.")

BearerToken = Annotated[str | None, Depends(_bearer)]
BasicHeader = Annotated[str | None, Depends(basic_header)]


async def get_context(request: Request) -> Context:  # async: not worth a thread
    """Return what the app's handlers share."""
    context = request.app.state.context
    if not isinstance(context, Context):
        raise TypeError("the app was not made by create_app")
    return context


SharedContext = Annotated[Context, Depends(get_context)]


def client_address(request: Request) -> str:
    """Return the address of the peer; headers that anybody can set are not believed."""
    return request.client.host if request.client else ""


def request_id(request: Request) -> str:
    """Return the id of the request: the client's if it sent a good one, else one made for it."""
    return str(request.scope.get(REQUEST_ID_KEY, ""))


def log_in(request: Request, context: Context, username: str, password: SecretStr) -> Principal:
    """Check a person's password, within what one address may try.

    Guesses at one name from one address are refused untried once they were too many. Failures of an address with
    all kinds of names only change how a failure is answered: who knows its password gets in.

    Raises:
        AuthenticationError: it is wrong, or the user is unknown or locked.
        HTTPException: 429, too many failures.
    """
    address = client_address(request)
    key = (address, username[:128])
    refuse_until(context.password_failures.retry_after(key, context.monotonic()))
    try:
        person = logins.authenticate(
            context.factory,
            username,
            password,
            context.lockout_policy,
            context.clock(),
            passes_lock=key in context.known_callers,
        )
    except logins.LoginRefusedError as error:
        note_refused_login(request, error.username, error.reason)
        context.known_callers.note_failure(key)
        context.password_failures.note_failure(key, context.monotonic())
        refuse_until(context.address_failures.note_failure(address, context.monotonic()))
        raise
    context.known_callers.note_success(key)
    return person


def require_person(request: Request, context: SharedContext, bearer: BearerToken, basic: BasicHeader) -> Principal:
    """Return the person who calls: by session, by API token, or by name and password."""
    if bearer is None:
        username, password = parse_basic(basic)
        person = log_in(request, context, username, password)
    elif api_tokens.is_api_token(SecretStr(bearer)):
        person = _resume_api_token(context, SecretStr(bearer))
    else:
        with context.reading() as session:
            person = users.resume_session(session, SecretStr(bearer), context.clock())
    note_caller(request, f"user:{person.username}")
    caller = (person.user_id, person.token_id)
    refuse_until(context.limits.people.take(caller, context.monotonic()), "too many requests")
    return person


def _resume_api_token(context: Context, token: SecretStr) -> Principal:
    with context.reading() as session:
        use = api_tokens.resume_token(session, token, context.clock())
    if use.is_to_be_noted:
        with context.writing() as session:
            api_tokens.note_use(session, use.principal, context.clock())
    return use.principal


Person = Annotated[Principal, Depends(require_person)]


@dataclass(frozen=True, slots=True)
class Editor:
    """A person who may change things, and how what they change is recorded."""

    principal: Principal
    actor: Actor
    clock: Callable[[], datetime]

    def record(self, session: Session, action: str, resource: str, changes: Mapping[str, Any] | None = None) -> None:
        """Record a change in the audit log, with the transaction that makes it; see ``audit_log.record``."""
        audit_log.record(session, self.actor, action, resource, changes=changes, now=self.clock())


def require_owner(request: Request, context: SharedContext, person: Person) -> Editor:
    """Return the person who calls, to change what is its own: password, sessions, tokens; operators may, too."""
    actor = Actor(f"user:{person.username}", client_address(request), request_id(request))
    return Editor(person, actor, context.clock)


Owner = Annotated[Editor, Depends(require_owner)]


def require_admin(owner: Owner) -> Editor:
    """Return the person who calls if it may change things; 403 for operators, who only read."""
    if owner.principal.is_operator:
        raise HTTPException(403, "operators may read everything and change nothing")
    return owner


Admin = Annotated[Editor, Depends(require_admin)]


def require_system_admin(editor: Admin) -> Editor:
    """Return the person who calls if it is the system administrator; 403 otherwise."""
    if not editor.principal.is_system_admin:
        raise HTTPException(403, "only the system administrator may do this")
    return editor


SystemAdmin = Annotated[Editor, Depends(require_system_admin)]


def parse_basic(value: str | None) -> tuple[str, SecretStr]:
    """Return the username and password of a Basic header's value; raises ``AuthenticationError``."""
    if value is None:
        raise AuthenticationError("credentials needed")
    try:
        username, colon, password = b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise AuthenticationError("invalid credentials") from error
    if not colon:
        raise AuthenticationError("invalid credentials")
    return username, SecretStr(password)


def refuse_until(retry_after: int | None, message: str = "too many failed attempts") -> None:
    """Answer 429 with that ``Retry-After``, in seconds; None lets the caller pass."""
    if retry_after is not None:
        raise HTTPException(429, message, {"Retry-After": str(retry_after), **CHALLENGE})
