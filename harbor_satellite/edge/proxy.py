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
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.datastructures import Headers

from harbor_satellite.edge.link import ANSWERS, UNAUTHORIZED, Centre, CentreAwayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope, Send

    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
_PREFIX: Final = "/api"
_EVENTS_IN: Final = f"{_PREFIX}/events/in"
_EVENTS_OUT: Final = f"{_PREFIX}/events/out"
_USER: Final = "edge"
_BODY_MAX_BYTES: Final = 8 * 1024 * 1024
_RETRY_SECONDS: Final = 5
_EVENTS_MAX: Final = 5000  # kept while the link is down; then the run waits
_BATCH: Final = 50
_BATCH_MAX_BYTES: Final = 1024 * 1024  # the gateway refuses requests of more than 4 MiB, with all that is in them
_EVENT_MAX_BYTES: Final = 1024 * 1024  # events of Prefect's are some kB
_FRAME_MAX_BYTES: Final = 4 * 1024 * 1024  # a larger one ends the websocket, and its sender would send it again
_GREETING_SECONDS: Final = 10.0
_NOT_FOUND: Final = 404
_TOO_LARGE: Final = 413
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
    """

    def __init__(self, centre: Centre, password: str) -> None:
        self._centre = centre
        self._token = f"{_USER}:{password}".encode()
        self._expected = b"Basic " + base64.b64encode(self._token)
        self._events: asyncio.Queue[str] = asyncio.Queue(_EVENTS_MAX)
        self._is_away = False

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
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._events.join(), seconds)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        delivering = asyncio.create_task(self._deliver())
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
            body += message.get("body", b"")
            if len(body) > _BODY_MAX_BYTES:
                return _TOO_LARGE, {}, b""
            if not message.get("more_body"):
                break
        try:
            answer = await self._centre.send(scope["method"], path[len(_PREFIX) :], bytes(body), agent)
        except CentreAwayError as error:
            self._note(str(error))
            wait = {"prefect-maintenance": "true", "retry-after": str(_RETRY_SECONDS)}
            return 503, wait, b""
        self._note("")
        return answer

    def _note(self, reason: str) -> None:
        """Say once that the centre is away, and once that it is back."""
        if bool(reason) != self._is_away:
            self._is_away = bool(reason)
            _LOG.warning("Prefect is %s reason=%s", "away" if reason else "back", reason or "none")

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
            if len(message["text"]) > _EVENT_MAX_BYTES:
                _LOG.warning("event dropped, it is too large characters=%d", len(message["text"]))
            else:
                # As text: that is how its size is known, and a tenth of what the parsed event would take.
                await self._events.put(message["text"])

    async def _is_greeted(self, receive: Receive) -> bool:
        try:
            async with asyncio.timeout(_GREETING_SECONDS):  # anybody on the machine can get this far
                token = str(_frame(await receive()).get("token"))
        except TimeoutError:
            return False
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token)

    async def _deliver(self) -> None:
        """Post events to the centre, in order; each batch until it has arrived."""
        while True:
            events = [await self._events.get()]
            size = len(events[0])
            while len(events) < _BATCH and size < _BATCH_MAX_BYTES and not self._events.empty():
                events.append(self._events.get_nowait())
                size += len(events[-1])
            body = f"[{','.join(events)}]".encode("utf-8", "replace")
            while not await self._is_delivered(body):  # noqa: ASYNC110  (it is the peer that is asked again)
                await asyncio.sleep(_RETRY_SECONDS)
            for _ in events:
                self._events.task_done()

    async def _is_delivered(self, body: bytes) -> bool:
        try:
            status, _, _ = await self._centre.send("POST", "/events", body)
        except CentreAwayError as error:
            self._note(str(error))
            return False
        if status not in ANSWERS:
            _LOG.warning("events refused by the centre status=%d", status)
        # What is refused for good would be refused for ever.
        return status not in {UNAUTHORIZED, 408, 429}


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
        self._proxy = EdgeProxy(Centre(store, verify=verify, renew=renew), self.auth_string.partition(":")[2])
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
        self._server = uvicorn.Server(config)
        logging.getLogger("uvicorn.error").addFilter(_KnownDenials())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="prefect-proxy", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """What Prefect's client is told."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}{_PREFIX}"

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
