"""The site's own way to Prefect: a small proxy on the loopback, inside the agent.

Prefect's client knows nothing but this proxy. It adds the site's present credential, so that a renewed one
is used at once; and while the link or the centre is down it answers what Prefect's client waits out without
limit, so that a run that was cut ends right. Events, by which the centre learns of task runs, are kept here
until the centre has confirmed them. Nobody else on the machine can use it: it asks for a password that is
made at each start.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import logging
import secrets
import socket
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.datastructures import Headers

from harbor_satellite.edge.event_post import LINGER_SECONDS, EventPost
from harbor_satellite.edge.link import UNAUTHORIZED, Centre, CentreAwayError, SharedTransport
from harbor_satellite.edge.local_answers import LocalAnswers, sent_body
from harbor_satellite.registry.server_process import QuietServer

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from starlette.types import Message, Receive, Scope, Send

    from harbor_satellite.edge.local_answers import Answer
    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
_PREFIX: Final = "/api"
_EVENTS_IN: Final = f"{_PREFIX}/events/in"
_EVENTS_OUT: Final = f"{_PREFIX}/events/out"
_USER: Final = "edge"
_BODY_MAX_BYTES: Final = 8 * 1024 * 1024
_RETRY_SECONDS: Final = 5
_EVENT_MAX_BYTES: Final = 1024 * 1024  # events of Prefect's are some kB
_FRAME_MAX_BYTES: Final = 4 * 1024 * 1024  # a larger one ends the websocket, and its sender would send it again
_GREETING_SECONDS: Final = 10.0
_NOT_FOUND: Final = 404
_TOO_LARGE: Final = 413
_CLOSED: Final = 499  # which nobody reads
_POLICY: Final = 1008


class _KnownDenials(logging.Filter):
    """Drops uvicorn's complaint about a websocket that was answered with a status, which is a handshake as well."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing handshake" not in str(record.msg)


class EdgeProxy:
    """The proxy as an ASGI app.

    Args:
        centre: where requests go.
        password: what Prefect's client must give.
        on_back: called when the centre answers again after it was away; must return at once.
        linger_seconds: for which an event waits for others to cross the link with it.
    """

    def __init__(
        self,
        centre: Centre,
        password: str,
        on_back: Callable[[], object] = lambda: None,
        *,
        linger_seconds: float = 0.0,
    ) -> None:
        self.away_since: datetime | None = None
        """Since when the centre cannot be asked; None: it answered last, or was not asked yet."""
        self._centre = centre
        self._on_back = on_back
        self._local = LocalAnswers()
        self._token = f"{_USER}:{password}".encode()
        self._expected = b"Basic " + base64.b64encode(self._token)
        self._events = EventPost(centre, self._note, linger_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one websocket."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            status, headers, body = await self._answer(scope, receive)
            await _respond(send, "http.response", status, headers, body)

    async def drain(self, seconds: float) -> None:
        """Wait until the centre has all events, but no longer than so many seconds."""
        await self._events.drain(seconds)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        delivering = asyncio.create_task(self._events.deliver())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        delivering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await delivering
        await self._centre.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _is_let_in(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "")
        return hmac.compare_digest(given.encode(), self._expected)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, str], bytes]:
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if not self._is_let_in(scope):
            return UNAUTHORIZED, {}, b""
        if not path.startswith(_PREFIX + "/"):
            return _NOT_FOUND, {}, b""
        agent, body = Headers(scope=scope).get("user-agent", ""), bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":  # what has come of it is no request
                return _CLOSED, {}, b""
            body += message.get("body", b"")
            if len(body) > _BODY_MAX_BYTES:
                return _TOO_LARGE, {}, b""
            if not message.get("more_body"):
                break
        return await self._ask(scope["method"], path[len(_PREFIX) :], bytes(body), agent)

    async def _ask(self, method: str, path: str, body: bytes, agent: str) -> Answer:
        known = self._local.find(method, path)
        if known is not None:
            return known
        question = self._local.question(method, path, body, datetime.now(UTC))
        try:
            if question is not None:
                told = self._local.told((await self._centre.send("POST", question, b""))[0])
                if told is not None:
                    self._note("")
                    return told
            answer = await self._centre.send(method, path, sent_body(method, path, body), agent)
        except CentreAwayError as error:
            self._note(str(error))
            return 503, {"prefect-maintenance": "true", "retry-after": str(_RETRY_SECONDS)}, b""
        self._note("")
        self._local.note(method, path, answer)
        return answer

    def _note(self, reason: str) -> None:
        """Say once that the centre is away, and once that it is back."""
        if reason:
            self._local.forget()
        if bool(reason) == (self.away_since is not None):
            return
        self.away_since = datetime.now(UTC) if reason else None
        _LOG.warning("Prefect is %s reason=%s", "away" if reason else "back", reason or "none")
        if not reason:
            self._on_back()

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] not in {_EVENTS_IN, _EVENTS_OUT}:
            # 404 lets a worker do by requests what it would do by its own websocket.
            await _respond(send, "websocket.http.response", _NOT_FOUND, {}, b"")
            return
        await send({"type": "websocket.accept", "subprotocol": "prefect"})
        if not await self._is_greeted(receive):
            await send({"type": "websocket.close", "code": _POLICY})
            return
        await send({"type": "websocket.send", "text": json.dumps({"type": "auth_success"})})
        while (message := await receive())["type"] == "websocket.receive":
            # Nothing ever comes out: a thread can neither be cancelled nor suspended, and who listens does not poll.
            if scope["path"] != _EVENTS_IN or not _frame(message):
                continue
            if (size := len(message["text"].encode("utf-8", "replace"))) > _EVENT_MAX_BYTES:
                _LOG.warning("event dropped, it is too large bytes=%d", size)
            else:
                await self._events.put(message["text"])

    async def _is_greeted(self, receive: Receive) -> bool:
        try:
            async with asyncio.timeout(_GREETING_SECONDS):  # anybody on the machine can get this far
                token = str(_frame(await receive()).get("token"))
        except TimeoutError:
            return False
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token)


class RunningProxy:
    """The proxy in a thread of its own, on a port that the system chooses.

    Args:
        store: where the registration is.
        verify: CA bundle of the centre, or True for the system's.
        renew: fetches the site's next credential, once the gateway refuses the present one.
    """

    def __init__(
        self, store: SatelliteStore, *, verify: str | bool = True, renew: Callable[[], object] | None = None
    ) -> None:
        self.auth_string = f"{_USER}:{secrets.token_urlsafe(32)}"
        self.on_back: Callable[[], object] = lambda: None
        """Called, in the proxy's thread, when the centre answers again after it was away; must return at once."""
        self._centre = Centre(store, verify=verify, renew=renew)
        self._proxy = EdgeProxy(
            self._centre, self.auth_string.partition(":")[2], self._come_back, linger_seconds=LINGER_SECONDS
        )
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            self._proxy,
            log_level="error",
            access_log=False,
            ws="websockets-sansio",
            ws_max_size=_FRAME_MAX_BYTES,
            lifespan="on",
            loop="asyncio",
        )
        self._server = QuietServer(config)
        logging.getLogger("uvicorn.error").addFilter(_KnownDenials())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="prefect-proxy", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """What Prefect's client is told."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}{_PREFIX}"

    @property
    def is_away(self) -> bool:
        """Whether the centre could not be asked, the last time that anybody tried."""
        return self._proxy.away_since is not None

    @property
    def away_since(self) -> datetime | None:
        """Since when it could not be asked; None: it answered last, or was not asked yet."""
        return self._proxy.away_since

    @property
    def transport(self) -> httpx.BaseTransport:
        """The proxy's own connections, for a client in another thread: a report then needs no handshake of its own."""
        return SharedTransport(self._centre, lambda: self._loop)

    def start(self) -> None:
        """Serve; requests that come before the thread is ready wait for it."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Wait so long for events that are still to be delivered, then end."""
        if self._loop and self._thread.is_alive():
            draining = asyncio.run_coroutine_threadsafe(self._proxy.drain(seconds), self._loop)
            with contextlib.suppress(TimeoutError):
                draining.result(seconds + 1)
        self._server.should_exit = True
        self._thread.join(seconds)

    def _come_back(self) -> None:
        self.on_back()  # which may be set at any time

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])


def _frame(message: Message) -> dict[str, Any]:
    """Return the JSON object of a websocket's frame; an empty one if it holds anything else."""
    try:
        frame = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        return {}
    return frame if isinstance(frame, dict) else {}


async def _respond(send: Send, kind: str, status: int, headers: dict[str, str], body: bytes) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": f"{kind}.start", "status": status, "headers": raw})
    await send({"type": f"{kind}.body", "body": body})
