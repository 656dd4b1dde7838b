"""Serving a site's status over HTTP: the page, JSON, health, readiness and metrics. Reading only.

Whoever reaches it may read all of it, so it listens on the loopback unless somebody says otherwise. A page of the
internet in the technician's browser must not reach it under a name of its own (DNS rebinding): names are checked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers

from harbor_satellite.edge.status import StatusReader
from harbor_satellite.edge.status_page import POLICY, render_page
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.registry.server_process import RegistryServer, parse_listen
from harbor_satellite.satellite.health import is_agent_well, not_ready, status_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from harbor_satellite.satellite.status import SiteStatus
    from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)
_KEPT_SECONDS: Final = 1.0
"""How old an answer may be: many askers cost no more than one."""
_CONNECTIONS_MAX: Final = 32
_CONNECTION_SECONDS: Final = 60.0
"""So long at most: a laptop that went away, and who says nothing, must not hold one of them for ever."""
_STOP_SECONDS: Final = 2.0
_HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

Answer = tuple[int, str, bytes]


class StatusApp:
    """The answers, as an ASGI app.

    Args:
        read: makes the status of this moment; called in a thread, one at a time.
        host: the name or address under which it is asked, beside those of the machine itself.
        monotonic: seconds of a clock that nobody sets.
    """

    def __init__(
        self, read: Callable[[], SiteStatus], host: str = "", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._names = {"localhost", socket.gethostname().lower(), host.lower()}
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._status: SiteStatus | None = None
        self._read_at = float("-inf")
        self._answers = {
            "/": _page,
            "/status.json": lambda status: (200, _JSON, status_json(status)),
            "/healthz": _health,
            "/readyz": _readiness,
            "/metrics": _metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (no body is read)
        """Handle one request."""
        if scope["type"] != "http":  # a websocket is refused by closing it
            return
        status, kind, body = await self._answer(scope)
        headers = {**_HEADERS, "content-type": kind, "content-length": str(len(body))}
        if kind == _HTML:
            headers["content-security-policy"] = POLICY
        if status == 405:  # noqa: PLR2004
            headers["allow"] = "GET, HEAD"
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Scope) -> Answer:
        if not self._is_own_name(Headers(scope=scope).get("host", "")):
            return 421, _TEXT, b"not the name of this site: ask by its address\n"
        if scope["method"] not in {"GET", "HEAD"}:
            return 405, _TEXT, b"there is nothing to change here\n"
        make = self._answers.get(scope["path"])
        if make is None:
            return 404, _TEXT, b"there is /, /status.json, /healthz, /readyz and /metrics\n"
        try:
            return make(await self._fresh())
        except Exception:  # noqa: BLE001  (an ASGI app answers whatever happens)
            _LOG.exception("status not shown path=%s", scope["path"])
            return 500, _TEXT, b"the status cannot be shown; see the log\n"

    async def _fresh(self) -> SiteStatus:
        async with self._lock:
            if self._status is None or self._monotonic() - self._read_at >= _KEPT_SECONDS:
                self._status = await asyncio.to_thread(self._read)
                self._read_at = self._monotonic()
            return self._status

    def _is_own_name(self, given: str) -> bool:
        """Tell whether a Host header names this machine; an address always does, since no one can rebind it."""
        host = given.rpartition(":")[0] if not given.endswith("]") and ":" in given else given
        host = host.removeprefix("[").removesuffix("]").lower()
        try:
            ip_address(host)
        except ValueError:
            return bool(host) and host in self._names
        return True


class StatusServer:
    """The status of a site, served from a thread of its own.

    Args:
        settings: the site's own; ``status_listen`` says where, empty: nowhere.
        current: gives those that hold by now, where they are read anew while the process goes on.
    """

    def __init__(self, settings: SatelliteSettings, current: Callable[[], SatelliteSettings] | None = None) -> None:
        self._listen = settings.status_listen
        self._reader = StatusReader(current or (lambda: settings))
        self._server: RegistryServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens; empty: nowhere."""
        return self._server.url if self._server else ""

    def start(self) -> None:
        """Serve, if anybody can listen there; if not, that costs a warning: the site works without being seen."""
        if not self._listen:
            return
        try:
            host, port = parse_listen(self._listen)
            app = StatusApp(lambda: self._reader.read(datetime.now(UTC)), host)
            self._server = RegistryServer(
                app, host, port, connections_max=_CONNECTIONS_MAX, connection_seconds=_CONNECTION_SECONDS
            )
        except InvalidInputError as error:
            _LOG.warning("no status page: %s", error)
            return
        self._thread = threading.Thread(target=self._server.run, name="status-server", daemon=True)
        self._thread.start()
        _LOG.info("status page url=%s/", self._server.url)

    def stop(self) -> None:
        """End; requests under way are not waited for longer than two seconds."""
        if self._server and self._thread:
            self._server.stop()
            self._thread.join(_STOP_SECONDS)


def _page(status: SiteStatus) -> Answer:
    return 200, _HTML, render_page(status).encode()


def _health(status: SiteStatus) -> Answer:
    alive_at = status.agent_alive_at
    seconds = (status.made_at - alive_at).total_seconds() if alive_at else None
    since = f" for {seconds:.0f} s" if seconds else ""
    return _verdict([] if is_agent_well(status) else [f"the agent has not shown that it is well{since}"])


def _readiness(status: SiteStatus) -> Answer:
    return _verdict(list(not_ready(status)))


def _verdict(reasons: list[str]) -> Answer:
    document = {"ok": not reasons, "reasons": reasons}
    return 503 if reasons else 200, _JSON, json.dumps(document).encode() + b"\n"


def _metrics(status: SiteStatus) -> Answer:
    from harbor_satellite.edge.metrics import render_metrics  # noqa: PLC0415  (4 MB that few sites ever need)

    return 200, _TEXT, render_metrics(status)
