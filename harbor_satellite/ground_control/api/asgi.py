"""The outermost layer of the API: request ids, a cap on bodies, and the last catch.

A plain ASGI middleware, because it must see bytes before anything parses them.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER: Final = "X-Request-ID"
REQUEST_ID_KEY: Final = "harbor_satellite.request_id"
"""Where the ASGI scope of a request holds its id."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TOO_LARGE: Final = 413
_FAILED: Final = 500
_NOTHING: Final = 204


class RequestBoundary:
    """Wraps the whole app; see the module.

    Args:
        app: what to wrap.
        body_max_bytes: longer bodies are refused, whether announced or not.
    """

    def __init__(self, app: ASGIApp, body_max_bytes: int) -> None:
        self._app = app
        self._body_max_bytes = body_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get(REQUEST_ID_HEADER, "").strip()
        # A client's id goes into logs: one that could forge them is replaced.
        request_id = asked if _REQUEST_ID.fullmatch(asked) else str(uuid.uuid4())
        scope[REQUEST_ID_KEY] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] != _NOTHING:  # polls of idle sites; where nothing is said, nothing went wrong
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        if _announced(headers) > self._body_max_bytes:
            await _answer(send_with_id, _TOO_LARGE, self._too_large)
            return
        try:
            await self._app(scope, self._capped(receive), send_with_id)
        except Exception:
            logger.exception("request failed request_id=%s", request_id)
            if started:
                raise
            await _answer(send_with_id, _FAILED, "Internal server error")

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self._body_max_bytes} bytes"

    def _capped(self, receive: Receive) -> Receive:
        received = 0

        async def receive_capped() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._body_max_bytes:
                raise HTTPException(_TOO_LARGE, self._too_large)
            return message

        return receive_capped


def _announced(headers: Headers) -> int:
    length = headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"message": message, "code": status}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == _TOO_LARGE:
        headers.append((b"connection", b"close"))  # nobody reads the rest of the body
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
