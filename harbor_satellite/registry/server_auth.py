"""Who may do what: an ASGI layer in front of the registry's routes. Reads are open unless told; writes are not."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from typing import TYPE_CHECKING, Final, Protocol

import anyio
import anyio.to_thread
from starlette.datastructures import Headers

from harbor_satellite.registry.layout_refusals import ErrorCode
from harbor_satellite.registry.server_errors import error_response

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log: Final = logging.getLogger(__name__)
_READS: Final = frozenset({"GET", "HEAD"})
_CHALLENGE: Final = {"www-authenticate": 'Basic realm="harbor-satellite", charset="UTF-8"'}
_PARALLEL_CHECKS: Final = 2
"""Password checks at once: bcrypt is slow on purpose and must not take the threads that serve pulls."""


class Authenticator(Protocol):
    """Whoever knows the passwords."""

    def verify(self, username: str, password: str) -> bool:
        """Tell whether the password is this user's; may be slow, is called in a thread."""
        ...


class AccessControl:
    """Lets a request through to ``app``, or answers 401 or 403.

    Args:
        app: the registry's routes.
        authenticator: who knows the passwords; None means nobody can log in.
        anonymous_read: pulls need no credentials. Wrong ones are refused all the same.
        allow_anonymous_writes: without an authenticator, let everybody write; for tests and demos.
        writers: which users may write; None: all whom the authenticator knows.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator | None,
        *,
        anonymous_read: bool,
        allow_anonymous_writes: bool,
        writers: Collection[str] | None = None,
    ) -> None:
        self._app: Final = app
        self._authenticator: Final = authenticator
        self._anonymous_read: Final = anonymous_read
        self._allow_anonymous_writes: Final = allow_anonymous_writes
        self._writers: Final = None if writers is None else frozenset(writers)
        self._checks: Final = anyio.CapacityLimiter(_PARALLEL_CHECKS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI calls it."""
        try:
            await self._serve(scope, receive, send)
        except asyncio.CancelledError:
            # Only a stopping server cancels: a slow pull outlived its grace. That is no failure to trace.
            _log.warning("request cut, the registry stops method=%s path=%s", scope["method"], scope["path"])

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        is_ping = self._authenticator is not None and scope["path"] in ("/v2", "/v2/")
        await self._app(scope, receive, _challenging(send) if is_ping else send)

    async def _refusal(self, scope: Scope) -> Response | None:
        is_read = scope["method"] in _READS
        if self._authenticator is None:
            if (is_read and self._anonymous_read) or (not is_read and self._allow_anonymous_writes):
                return None
            return error_response(403, ErrorCode.DENIED, "this registry has no users, so nobody may do this")
        header = Headers(scope=scope).get("authorization", "")
        credentials = _credentials(header)
        # podman and skopeo send empty credentials where they have none (so does Zot take them).
        if header == "" or credentials == ("", ""):
            return None if is_read and self._anonymous_read else _unauthorized("log in to do this")
        if credentials is None:
            return _unauthorized("only Basic credentials are taken here")
        return await self._refused_user(self._authenticator, credentials, may_read=is_read)

    async def _refused_user(
        self, authenticator: Authenticator, credentials: tuple[str, str], *, may_read: bool
    ) -> Response | None:
        is_right = await anyio.to_thread.run_sync(authenticator.verify, *credentials, limiter=self._checks)
        if not is_right:
            return _unauthorized("wrong user name or password")
        if not may_read and self._writers is not None and credentials[0] not in self._writers:
            return error_response(403, ErrorCode.DENIED, "this user may only read")
        return None


def _unauthorized(message: str) -> Response:
    return error_response(401, ErrorCode.UNAUTHORIZED, message, _CHALLENGE)


def _credentials(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        username, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (username, password) if colon else None


def _challenging(send: Send) -> Send:
    # Clients look at /v2/ to learn how to log in, even where reading needs no login.
    async def send_with_challenge(message: Message) -> None:
        if message["type"] == "http.response.start":
            challenge = [(name.encode(), value.encode()) for name, value in _CHALLENGE.items()]
            message = {**message, "headers": [*message["headers"], *challenge]}
        await send(message)

    return send_with_challenge
