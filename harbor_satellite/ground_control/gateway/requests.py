"""HTTP as the gateway sees it: who calls, what the body is, and the answers that it gives itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from harbor_satellite.errors import AuthenticationError, SizeLimitError, UntrustedDataError
from harbor_satellite.ground_control.api.callers import parse_basic
from harbor_satellite.ground_control.api.context import GATEWAY_PATH
from harbor_satellite.ground_control.api.error_answers import CHALLENGE
from harbor_satellite.ground_control.gateway.documents import BODY_MAX_BYTES, RefusedError, write
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.satellites.credentials import check_usable, credentials_of
from harbor_satellite.state.packed import GZIP, pack, pays, takes_packed, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

    from harbor_satellite.ground_control.api.context import Context
    from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity

_NOT_LOGGED: Final = re.compile(r"[0-9a-fA-F-]{32,}|[^a-z_/-]+")
_CLIENT: Final = re.compile(r"prefect/[0-9A-Za-z.+-]{1,40}(?: \(API [0-9A-Za-z.+-]{1,40}\))?")
_OUTLINE_MAX: Final = 100  # characters
_BODY_SECONDS: Final = 30.0
_HEADER_MAX: Final = 4096  # characters
_LOOKUPS_AT_ONCE: Final = 8  # fewer than threads and database connections: wrong credentials must not take them all
_PACKED_AT_ONCE: Final = 64 * 1024  # bytes; more are packed in a thread, while others are served
RETRY_SECONDS: Final = 5
BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
TOO_LARGE: Final = 413
TOO_MANY: Final = 429
MAINTENANCE: Final = 503


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a site."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        """Send it."""
        headers = {"Cache-Control": "no-store", "Content-Length": str(len(self.body)), **self.headers}
        if self == NOTHING:  # most of what the links of idle sites carry
            headers = {}
        if self.body:
            headers["Content-Type"] = "application/json"
            headers["Accept-Encoding"] = GZIP  # RFC 7694: a site packs its bodies only once it has been told
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": self.body})


NOTHING: Final = Reply(204)
"""Nothing is due, or nothing is to be said."""


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Make an answer that refuses; ``detail`` is where Prefect's client looks for the reason."""
    return Reply(status, write({"message": message, "detail": message, "code": status}), headers or {})


def refusal_of(error: RefusedError) -> Reply:
    """Make the answer to a call that is refused; it does not say what is wrong with one that is not the caller's."""
    if isinstance(error, UnreadableError):
        return refusal(BAD_REQUEST, str(error))
    return refusal(FORBIDDEN, "not a call that this satellite may make")


async def packed_for(scope: Scope, reply: Reply) -> Reply:
    """Return an answer packed, if that pays and the caller takes it so."""
    if not pays(reply.body) or not takes_packed(Headers(scope=scope).get("accept-encoding", "")):
        return reply
    is_small = len(reply.body) <= _PACKED_AT_ONCE
    body = pack(reply.body) if is_small else await run_in_threadpool(pack, reply.body)
    return replace(reply, body=body, headers={**reply.headers, "Content-Encoding": GZIP})


def maintenance() -> Reply:
    """Make the answer that Prefect's client waits out for as long as it takes."""
    headers = {"Prefect-Maintenance": "true", "Retry-After": str(RETRY_SECONDS)}
    return refusal(MAINTENANCE, "Prefect cannot be asked now", headers)


class UnreadableError(RefusedError):
    """A packed body that cannot be unpacked; the message says why."""


class CallerGoneError(Exception):
    """The caller hung up before all of the request had come."""


class NotLetIn(Exception):  # noqa: N818  (not an error of ours)
    """The caller is not a satellite, or nobody can tell now; holds the answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Door:
    """Lets satellites in.

    Args:
        context: what the app's handlers share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

    async def let_in(self, scope: Scope) -> SatelliteIdentity:
        """Return which satellite calls.

        Raises:
            NotLetIn: with the answer to give.
        """
        username = ""
        try:
            headers = Headers(scope=scope).getlist("authorization")
            kind, _, value = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
            is_basic = kind.lower() == "basic" and len(value) <= _HEADER_MAX
            username, secret = parse_basic(value.strip() if is_basic else None)
            known = self._context.identities.recall(username, secret)
            if known is not None:
                return known
            async with self._lookups:
                return await run_in_threadpool(self._context.identities.authenticate, username, secret)
        except AuthenticationError as error:
            # Looked at first and counted after: whoever has the right secret never waits for those who don't.
            address = scope["client"][0] if scope.get("client") else ""
            wait = self._context.note_secret_failure((address, username[:128]))
            if wait is not None:
                later = {"Retry-After": str(wait), **CHALLENGE}
                raise NotLetIn(refusal(TOO_MANY, "too many failed attempts", later)) from error
            raise NotLetIn(refusal(UNAUTHORIZED, str(error), CHALLENGE)) from error
        except SQLAlchemyError as error:
            raise NotLetIn(maintenance()) from error


def has_good_credential(context: Context, satellite_id: int) -> bool:
    """Tell whether a satellite has any credential with which it would be let in; asks the database."""
    now = context.clock()
    with context.reading() as session:
        satellite = session.get(Satellite, satellite_id)
        if satellite is None:
            return False
        for credential in credentials_of(session, satellite):
            with contextlib.suppress(AuthenticationError):
                check_usable(credential, satellite, now, timedelta(0))
                return True
    return False


def path_of(scope: Scope) -> str:
    """Return what a request asks for below the gateway, as it was sent; raises ``RefusedError``."""
    raw = scope.get("raw_path") or scope["path"].encode()
    if scope.get("query_string"):
        raise RefusedError("a query")
    if not raw.startswith(GATEWAY_PATH.encode() + b"/") or not raw.isascii():
        raise RefusedError("not a path below the gateway")
    return str(raw[len(GATEWAY_PATH) :].decode())


def client_of(scope: Scope) -> str:
    """Return the ``User-Agent`` of a client of Prefect's; empty for any other."""
    agent = Headers(scope=scope).get("user-agent", "")
    return agent if _CLIENT.fullmatch(agent) else ""


def outline(scope: Scope) -> str:
    """Return a path that is in no line of the table as it may be logged: without ids, and without its end."""
    return _NOT_LOGGED.sub("?", str(scope["path"])[len(GATEWAY_PATH) : len(GATEWAY_PATH) + _OUTLINE_MAX])


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a request, unpacked, which must be JSON if there is any.

    Raises:
        RefusedError: it is in another coding than gzip, of another type, too large, or does not come.
        UnreadableError: it cannot be unpacked.
        CallerGoneError: nobody waits for the answer any more.
    """
    headers = Headers(scope=scope)
    codings = [coding.strip().lower() for coding in headers.getlist("content-encoding")]
    if codings not in ([], ["identity"], [GZIP]):
        raise RefusedError("a body in a coding that is not taken")
    body = await _received(receive)
    if body and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError("the body is not called JSON")
    if codings != [GZIP]:
        return body
    try:
        return unpack(body, BODY_MAX_BYTES)
    except SizeLimitError as error:
        raise RefusedError(str(error)) from None
    except UntrustedDataError as error:
        raise UnreadableError(str(error)) from None


async def _received(receive: Receive) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerGoneError
                body += message.get("body", b"")
                if len(body) > BODY_MAX_BYTES:
                    raise RefusedError(f"the body is larger than {BODY_MAX_BYTES} bytes")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise RefusedError("the body does not come") from None
