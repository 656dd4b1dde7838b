"""Who is calling: dependencies that turn an ``Authorization`` header into a person or a satellite."""

import binascii
from base64 import b64decode
from typing import Annotated, Final

from fastapi import Depends, HTTPException, Request
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase
from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control import credentials, users
from harbor_satellite.ground_control.context import Context
from harbor_satellite.ground_control.credentials import SatelliteIdentity
from harbor_satellite.ground_control.error_answers import CHALLENGE
from harbor_satellite.ground_control.users import Principal

_LONGEST_HEADER: Final = 4096  # characters


class AuthorizationHeader(SecurityBase):
    """Gives the credentials of one scheme, or None; exists so that the API's documentation names it."""

    def __init__(self, scheme: str, description: str) -> None:
        self.scheme_name = scheme
        self.model = HTTPBase(scheme=scheme, description=description)

    def __call__(self, request: Request) -> str | None:
        """Return what follows the scheme's name in the header."""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        is_mine = scheme.lower() == self.scheme_name and len(value) <= _LONGEST_HEADER
        return value.strip() if is_mine else None


_bearer: Final = AuthorizationHeader("bearer", "A session from POST /login.")
_basic: Final = AuthorizationHeader("basic", "A user's name and password, or a satellite's credential.")

BearerToken = Annotated[str | None, Depends(_bearer)]
BasicHeader = Annotated[str | None, Depends(_basic)]


def get_context(request: Request) -> Context:
    """Return what the app's handlers share."""
    context = request.app.state.context
    if not isinstance(context, Context):
        raise TypeError("the app was not made by create_app")
    return context


SharedContext = Annotated[Context, Depends(get_context)]


def client_address(request: Request) -> str:
    """Return the address of the peer; headers that anybody can set are not believed."""
    return request.client.host if request.client else ""


def log_in(context: Context, address: str, username: str, password: SecretStr) -> Principal:
    """Check a person's password, within what one address may try.

    Raises:
        AuthenticationError: it is wrong, or the user is unknown or locked.
        HTTPException: 429, too many failures.
    """
    key = (address, username[:128])
    _refuse(context.password_failures.retry_after(key, context.monotonic()))
    try:
        return users.authenticate(context.factory, username, password, context.lockout_policy, context.clock())
    except AuthenticationError:
        context.password_failures.note_failure(key, context.monotonic())
        raise


def require_person(request: Request, context: SharedContext, bearer: BearerToken, basic: BasicHeader) -> Principal:
    """Return the person who calls: by session, or by name and password."""
    if bearer is not None:
        with context.reading() as session:
            return users.resume_session(session, SecretStr(bearer), context.clock())
    username, password = _parse_basic(basic)
    return log_in(context, client_address(request), username, password)


Person = Annotated[Principal, Depends(require_person)]


def require_system_admin(person: Person) -> Principal:
    """Return the person who calls if it is the system administrator; 403 otherwise."""
    if not person.is_system_admin:
        raise HTTPException(403, "only the system administrator may do this")
    return person


SystemAdmin = Annotated[Principal, Depends(require_system_admin)]


def require_satellite(request: Request, context: SharedContext, basic: BasicHeader) -> SatelliteIdentity:
    """Return the satellite that calls with its credential."""
    username, secret = _parse_basic(basic)
    try:
        with context.reading() as session:
            return credentials.authenticate_satellite(session, username, secret)
    except AuthenticationError:
        # Looked at first and counted after: whoever has the right secret never waits for those who don't.
        _refuse(context.note_secret_failure((client_address(request), username[:128])))
        raise


CallingSatellite = Annotated[SatelliteIdentity, Depends(require_satellite)]


def refuse_too_many_claims(request: Request, context: Context) -> None:
    """Count a wrong one-time token; 429 once an address has sent too many."""
    _refuse(context.note_secret_failure((client_address(request), "ztr")))


def _parse_basic(value: str | None) -> tuple[str, SecretStr]:
    if value is None:
        raise AuthenticationError("credentials needed")
    try:
        username, colon, password = b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise AuthenticationError("invalid credentials") from error
    if not colon:
        raise AuthenticationError("invalid credentials")
    return username, SecretStr(password)


def _refuse(retry_after: int | None) -> None:
    if retry_after is not None:
        raise HTTPException(429, "too many failed attempts", {"Retry-After": str(retry_after), **CHALLENGE})
